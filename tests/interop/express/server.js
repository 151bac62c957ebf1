// Chat APIs behind express-rate-limit: node server.js LIMIT WINDOW_MS. One for each form of its headers, at a
// path of that name (/legacy/v1, /draft-6/v1, …), with a counter of its own. Writes its port to stdout.
const express = require("express");
const { rateLimit } = require("express-rate-limit");

const [limit, windowMs] = process.argv.slice(2).map(Number);
const app = express();
for (const headers of ["legacy", "draft-6", "draft-7", "draft-8"]) {
  const legacy = headers === "legacy";
  const router = express.Router();
  router.use(rateLimit({ limit, windowMs, standardHeaders: legacy ? false : headers, legacyHeaders: legacy }));
  router.post("/v1/chat/completions", (request, response) => {
    response.json({
      id: "made", object: "chat.completion", created: 0, model: "deepseek-chat",
      choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "length" }],
      usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
    });
  });
  app.use(`/${headers}`, router);
}
const server = app.listen(0, "127.0.0.1", () => console.log(server.address().port));
