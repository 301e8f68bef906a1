// TLS by Node: client HOST PORT CASES, or server PORT CERTIFICATE KEY.
const fs = require("fs");
const tls = require("tls");
const [role, ...rest] = process.argv.slice(2);

function visit(host, port, options) {
  return new Promise((resolve) => {
    let answer = "";
    const socket = tls.connect(
      { host, port, servername: "www.example", rejectUnauthorized: false, ...options },
      () => socket.write("GET / HTTP/1.0\r\n\r\n"),
    );
    socket.on("data", (data) => (answer += data));
    socket.on("end", () => resolve(answer.split("\r\n\r\n")[1].trim()));
    socket.on("error", (error) => resolve("error: " + error.message.trim()));
  });
}

async function run(host, port, cases) {
  for (const options of JSON.parse(cases)) console.log(await visit(host, port, options));
}

if (role === "client") {
  run(...rest);
} else {
  const [port, cert, key] = rest;
  const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
  const server = tls.createServer(options, (socket) => {
    socket.on("error", () => {});
    socket.on("data", () => socket.end("HTTP/1.0 200 OK\r\n\r\nok\n"));
  });
  server.on("tlsClientError", () => {});
  server.listen(port);
}
