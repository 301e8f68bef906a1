"""The style of the report: dark or light, as the browser prefers."""

from __future__ import annotations

from typing import Final

__all__ = ["STYLE"]

STYLE: Final = """
:root { color-scheme: light dark; --back: #fff; --text: #1c2024; --dim: #667079; --line: #e3e6e9;
  --panel: #f6f7f9; --opened: #2f6fde; --relayed: #2a9d74; --passed: #9aa3ab; --failed: #d64545; }
@media (prefers-color-scheme: dark) { :root { --back: #15181b; --text: #e4e7ea; --dim: #8f99a3;
  --line: #2b3036; --panel: #1d2126; --opened: #6c9cf5; --relayed: #4cc38a; --passed: #6a737c;
  --failed: #f07070; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1400px; padding: 24px; background: var(--back);
  color: var(--text); font: 14px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0; } h2 { font-size: 16px; margin: 32px 0 8px; }
h3 { font-size: 13px; margin: 14px 0 4px; color: var(--dim); }
p { margin: 4px 0; } .dim { color: var(--dim); } .bad { color: var(--failed); }
code, pre, .mono { font: 12px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--panel); border-radius: 6px; margin: 4px 0; max-height: 400px;
  overflow: auto; padding: 8px 10px; white-space: pre-wrap; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 16px; }
.card { background: var(--panel); border-radius: 8px; padding: 10px 16px; min-width: 110px; }
.card b { display: block; font-size: 20px; }
dl { display: grid; gap: 1px 12px; grid-template-columns: 150px 1fr; margin: 4px 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
h3.mono { color: var(--text); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: 4px 12px 4px 0; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--dim); font-weight: 500; white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; overflow-wrap: normal; }
summary, .head { display: grid; align-items: center; gap: 10px; padding: 3px 0;
  grid-template-columns: 48px minmax(120px, 2fr) minmax(90px, 1.4fr) minmax(90px, 2fr) 150px
  minmax(140px, 3fr); }
summary { cursor: pointer; border-bottom: 1px solid var(--line); list-style: none; }
summary::-webkit-details-marker { display: none; }
summary:hover { background: var(--panel); }
summary > *, .head > * { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
summary > .number { text-align: right; }
.head { color: var(--dim); border-bottom: 1px solid var(--line); }
.flow > div { border-left: 3px solid var(--line); margin: 4px 0 16px 20px; padding: 0 0 0 16px; }
.track { background: var(--panel); border-radius: 3px; height: 14px; position: relative; }
.bar { border-radius: 3px; height: 14px; left: calc(var(--from) * 1%); min-width: 3px;
  opacity: .45; position: absolute; width: calc(var(--for) * 1%); }
.bar.part { height: 6px; opacity: 1; top: 4px; min-width: 2px; }
.intercepted { background: var(--opened); } .relayed { background: var(--relayed); }
.passthrough { background: var(--passed); } .failed { background: var(--failed); }
.key span { border-radius: 3px; display: inline-block; height: 10px; margin: 0 5px 0 16px;
  width: 18px; }
@media (max-width: 800px) { .head { display: none; }
  summary { gap: 0 10px; grid-template-columns: 32px 1fr 1fr; padding: 6px 0; }
  summary > :nth-child(4) { grid-column: 2 / 4; } summary > :nth-child(5) { grid-column: 2; } }
@media print { body { max-width: none; } pre { max-height: none; } }
"""
