// A chat API behind express-rate-limit: node server.js LIMIT WINDOW_MS HEADERS. Writes its port to stdout.
const express = require("express");
const { rateLimit } = require("express-rate-limit");

const [limit, windowMs, headers] = process.argv.slice(2);
const app = express();
app.use(rateLimit({
  limit: Number(limit),
  windowMs: Number(windowMs),
  standardHeaders: headers === "legacy" ? false : headers,
  legacyHeaders: headers === "legacy",
}));
app.post("/v1/chat/completions", (request, response) => {
  response.json({
    id: "made", object: "chat.completion", created: 0, model: "deepseek-chat",
    choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "length" }],
    usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
  });
});
const server = app.listen(0, "127.0.0.1", () => console.log(server.address().port));
