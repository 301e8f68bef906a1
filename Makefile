# Two commands work on a fresh machine: `make demo` and `make test`. The rest is for developers.
# What is missing is installed first: Debian packages (through sudo), and Python's into .venv (VENV).

SHELL := /bin/sh
# Where it is set, each process of pytest compiles all tests again.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
# Another interpreter needs an environment of its own: make PYTHON=python3.15 VENV=.venv-3.15 test
VENV ?= .venv
BIN := $(VENV)/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

TOOLS := nft=nftables ip=iproute2 curl=curl
# Of what comes without a command: a file of Debian's.
MODULES := /usr/lib/python3/dist-packages
SYSTEM_PYTHON := $(notdir $(realpath /usr/bin/python3))
GO_SOURCES := /usr/share/gocode/src/golang.org/x
# Not Ubuntu's: they are snaps.
BROWSERS := $(if $(shell grep -x ID=debian /etc/os-release),chromium=chromium firefox-esr=firefox-esr)
UNIT_TOOLS := $(TOOLS) openssl=openssl keytool=default-jre-headless certutil=libnss3-tools tshark=tshark \
    groff=groff-base fish=fish
E2E_TOOLS := zsh=zsh man=man-db /usr/share/bash-completion/bash_completion=bash-completion iptables-legacy=iptables sysctl=procps wget=wget nginx=nginx \
    sshd=openssh-server ssh=openssh-client microsocks=microsocks danted=dante-server \
    tinyproxy=tinyproxy squid=squid-openssl socat=socat nghttp=nghttp2-client gnutls-cli=gnutls-bin tcpdump=tcpdump \
    botan=botan lighttpd=lighttpd /usr/lib/lighttpd/mod_wolfssl.so=?lighttpd-mod-wolfssl \
    apache2=apache2-bin vsftpd=vsftpd lftp=lftp dovecot=dovecot-imapd exim4=exim4-daemon-light mariadbd=mariadb-server \
    mariadb=mariadb-client psql=postgresql-client pg_ctlcluster=postgresql tsql=freetds-bin \
    javac=default-jdk-headless git=git ruby=ruby php=php-cli node=nodejs npm=npm rclone=rclone \
    /usr/share/nodejs/har-validator=node-har-validator suricata=?suricata redis-server=redis-server \
    lwp-request=libwww-perl jq=jq $(MODULES)/requests=python3-requests $(MODULES)/httpx=python3-httpx \
    /usr/lib/nginx/modules/ngx_http_brotli_filter_module.so=libnginx-mod-http-brotli-filter \
    strace=strace $(BROWSERS) $(if $(SYSTEM_PYTHON),/usr/lib/$(SYSTEM_PYTHON)/test/test_httplib.py=lib$(SYSTEM_PYTHON)-testsuite)

.PHONY: help demo test check style types imports generated unit e2e package lock bench soak faults start-faults fuzz foreign-suites conformance tls-runner pictures clean
help:
	@echo "make demo    show mitml4 at work in a lab of network namespaces"
	@echo "make test    run every check that a change has to pass"
	@echo "make check   only the quick checks: style, types, import directions, generated files"
	@echo "make unit    the tests that need no root and no namespaces"
	@echo "make e2e     the other tests: real clients and servers, as root"
	@echo "make package build what is released into dist/: sdist, wheel, Debian package, lists of components"
	@echo "make lock    renew the versions in tools/locks that developers and the Debian package have"
	@echo "make fuzz    the fuzz tests, for longer"
	@echo "make bench   measure, and compare with other proxies"
	@echo "make soak    keep sessions under load and faults, for MINUTES=20"
	@echo "make faults  let each system call of a session fail once"
	@echo "make start-faults   the same at the start and the end of each kind of session, for hours"
	@echo "make foreign-suites   run other projects' tests directly and through mitml4, and compare"
	@echo "make conformance   run cases of h2spec and Autobahn through mitml4, editing or not"
	@echo "make tls-runner   run BoringSSL's tests of TLS peers against the TLS bridge"
	@echo "make pictures   draw the live table for the README, as root"
	@echo "make clean   remove what these commands have created"

demo: $(VENV)/ready
	@tools/install-commands $(TOOLS)
	@if unshare -Urn true 2>/dev/null; then exec $(BIN)/mitml4 demo; \
	else exec $(SUDO) $(BIN)/mitml4 demo; fi

# Checks and unit tests share the cores; each is shown when it ends. The end-to-end tests
# come behind, because they start programs that have to answer in time.
test: $(VENV)/ready-to-develop
	@tools/install-commands $(UNIT_TOOLS) $(E2E_TOOLS)
	@$(COMPILE)
	@$(MAKE) --no-print-directory --jobs --output-sync check unit
	@$(MAKE) --no-print-directory e2e

check: style types imports generated

style: $(VENV)/ready-to-develop
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: $(VENV)/ready-to-develop
	$(BIN)/mypy

imports: $(VENV)/ready-to-develop
	$(BIN)/lint-imports

generated: $(VENV)/ready-to-develop
	$(BIN)/python tools/generate.py --check

LOCK := $(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes \
    --no-annotate --no-header
CORES := $(shell nproc)
PYTEST := $(BIN)/python -m pytest -q -p no:cacheprovider --dist worksteal --numprocesses
# The tests start mitml4 hundreds of times; without this, compiling would take half of each start.
COMPILE := $(BIN)/python -m compileall -q mitml4

# One process more than cores: these tests seldom wait, and each process has to collect them all.
unit: $(VENV)/ready-to-develop
	@tools/install-commands $(UNIT_TOOLS)
	@$(COMPILE)
	$(PYTEST) $$(($(CORES) + 1)) --ignore tests/e2e --ignore tests/machine

# More processes than cores, because these tests wait for other programs half of the time.
# With sudo, write nothing into the source tree, because its files would belong to root.
e2e: $(VENV)/ready-to-develop
	@tools/install-commands $(UNIT_TOOLS) $(E2E_TOOLS)
	@$(COMPILE)
	$(if $(SUDO),$(SUDO) env PYTHONDONTWRITEBYTECODE=1) $(PYTEST) $$((3 * $(CORES))) \
	    tests/e2e tests/machine

package: $(VENV)/ready-to-develop
	@$(BIN)/python tools/package.py

# The newest versions that pyproject.toml permits, for every version of Python.
lock: $(VENV)/ready-to-develop
	@$(BIN)/pip install -q --disable-pip-version-check uv
	$(LOCK) pyproject.toml -o tools/locks/runtime.txt
	$(LOCK) pyproject.toml --group dev -c tools/locks/runtime.txt -o tools/locks/development.txt

fuzz: $(VENV)/ready-to-develop
	$(BIN)/python -m pytest -q tests/fuzz --hypothesis-profile=long

bench: $(VENV)/ready-to-develop
	$(SUDO) $(BIN)/python -m bench

soak: $(VENV)/ready-to-develop
	@tools/install-commands $(E2E_TOOLS)
	$(SUDO) $(BIN)/python tools/soak.py --minutes $(or $(MINUTES),20) $(if $(SEED),--seed $(SEED))

faults: $(VENV)/ready-to-develop
	@tools/install-commands $(E2E_TOOLS)
	$(SUDO) $(BIN)/python tools/inject_faults.py $(CALLS)

start-faults: $(VENV)/ready-to-develop
	@tools/install-commands $(E2E_TOOLS)
	$(SUDO) $(BIN)/python tools/inject_start_faults.py $(if $(KINDS),--kinds $(KINDS)) \
	    $(if $(PHASES),--phases $(PHASES)) $(if $(AT_MOST),--at-most $(AT_MOST)) $(CALLS)

# As an ordinary user, so that the tests with a PostgreSQL server run too.
foreign-suites: $(VENV)/ready-to-develop
	@tools/install-commands $(TOOLS) redis-server=redis-server pg_ctlcluster=postgresql \
	    nghttpd=nghttp2-server nginx=nginx
	$(BIN)/python tools/foreign_suites.py $(addprefix --edit ,$(EDIT)) $(SUITES)

conformance:
	@$(MAKE) --no-print-directory foreign-suites SUITES="http2-cases autobahn"

tls-runner: $(VENV)/ready-to-develop
	@tools/install-commands go=golang-go $(GO_SOURCES)/crypto=golang-golang-x-crypto-dev \
	    $(GO_SOURCES)/net=golang-golang-x-net-dev
	$(BIN)/python tools/tls_runner.py $(TESTS)

pictures: $(VENV)/ready-to-develop
	@tools/install-commands tmux=tmux $(TOOLS)
	$(BIN)/python tools/pictures.py

clean:
	rm -rf .venv .venv-* dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
	    bench/.venv-* bench/results
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "error: $(PYTHON) is older than 3.11"; \
	      echo "hint: make PYTHON=python3.12 …"; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    tools/install-commands python3-venv-is-missing=python3-venv
	@$(PYTHON) -m venv $(VENV)

$(VENV)/ready: $(VENV)/bin/python pyproject.toml
	@$(BIN)/pip install -q --disable-pip-version-check --editable .
	@touch $@

# With the locked versions, and checked by their hashes.
$(VENV)/ready-to-develop: $(VENV)/bin/python pyproject.toml tools/locks/development.txt
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r tools/locks/development.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(VENV)/ready $@
