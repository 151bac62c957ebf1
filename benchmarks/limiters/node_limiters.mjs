// Limiters from npm in front of the chat API: node node_limiters.mjs NAME LIMIT PERIOD_MS PORT.
// Packages that only decide get a plain 429 without headers.
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const MODELS = ["deepseek-chat", "deepseek-reasoner"];
const KEYS = ["sk-first", "sk-second"];
const TOKEN_MS = 50;
const MAX_TOKENS = 120;
const CHAT = "/v1/chat/completions";
const LIST = "/v1/models";

const [name, ...numbers] = process.argv.slice(2);
const [limit, periodMs, port] = numbers.map(Number);

// The same API as in api.py: a response with several chunks is a stream, whose chunks are to be sent TOKEN_MS apart.
function reply(method, path, authorization, body) {
  const json = (status, value) => ({ status, type: "application/json", chunks: [JSON.stringify(value)] });
  const fail = (status, code, message) => json(status, { error: { message, type: "invalid_request_error", code } });
  if (!KEYS.includes(authorization.replace(/^Bearer /, "")))
    return fail(401, "invalid_api_key", "Incorrect API key provided.");
  if (method === "GET" && path === LIST) {
    const data = MODELS.map((id) => ({ id, object: "model", created: 0, owned_by: "us" }));
    return json(200, { object: "list", data });
  }
  if (method !== "POST" || path !== CHAT) return fail(404, "not_found", "There is nothing at this address.");
  let asked, prompt, tokens;
  try {
    asked = JSON.parse(body);
    prompt = Math.floor(asked.messages.reduce((sum, one) => sum + one.content.length, 0) / 4) + 1;
    tokens = Math.min(MAX_TOKENS, Math.trunc(asked.max_tokens || MAX_TOKENS));
    if (!asked.model || !asked.messages.length) throw new TypeError("incomplete");
  } catch {
    return fail(400, "invalid_request_error", "The request is not a valid chat completion.");
  }
  if (!MODELS.includes(asked.model)) return fail(404, "model_not_found", "The model does not exist.");
  const usage = { prompt_tokens: prompt, completion_tokens: tokens, total_tokens: prompt + tokens };
  const made = (object, choices, more) => ({ id: "made", object, created: 0, model: asked.model, choices, ...more });
  if (!asked.stream) {
    const message = { role: "assistant", content: " word".repeat(tokens) };
    return json(200, made("chat.completion", [{ index: 0, message, finish_reason: "length" }], { usage }));
  }
  const event = (choices, more) => `data: ${JSON.stringify(made("chat.completion.chunk", choices, more))}\n\n`;
  const chunks = Array.from({ length: tokens }, (_, number) => {
    const delta = { ...(number === 0 && { role: "assistant" }), content: " word" };
    return event([{ index: 0, delta, finish_reason: null }]);
  });
  const last = event([{ index: 0, delta: {}, finish_reason: "length" }]);
  chunks.push(`${last}${asked.stream_options?.include_usage ? event([], { usage }) : ""}data: [DONE]\n\n`);
  return { status: 200, type: "text/event-stream", chunks };
}

async function* paced(chunks) {
  for (const [number, chunk] of chunks.entries()) {
    if (number) await sleep(TOKEN_MS);
    yield chunk;
  }
}

async function read(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts).toString();
}

// Serve one request of the API with node's own request and response.
async function chatApi(request, response) {
  const { method, url, headers } = request;
  const { status, type, chunks } = reply(method, url, headers.authorization ?? "", await read(request));
  response.writeHead(status, { "content-type": type });
  for await (const chunk of paced(chunks)) {
    if (response.destroyed) return;
    response.write(chunk);
  }
  response.end();
}

async function refuse(request, response) {
  await read(request);
  response.writeHead(429, { "content-type": "application/json" });
  response.end(JSON.stringify({ error: { message: "Too many requests", type: "rate_limit_error" } }));
}

const listen = (server) => server.listen(port, "127.0.0.1");

// Serve the API behind a function that decides on each chat request.
function behind(allow) {
  listen(
    createServer(async (request, response) => {
      const allowed = request.url !== CHAT || (await allow(request.headers.authorization ?? "nobody"));
      return (allowed ? chatApi : refuse)(request, response);
    }),
  );
}

// A limiter that rejects a promise decides by that. Errors of the program are not refusals.
const resolves = (promise) =>
  promise.then(
    () => true,
    (refusal) => {
      if (refusal instanceof TypeError || refusal instanceof ReferenceError) throw refusal;
      return false;
    },
  );

async function express(options) {
  const { default: makeApp } = await import("express");
  const { rateLimit } = await import("express-rate-limit");
  const app = makeApp();
  app.post(CHAT, rateLimit({ limit, windowMs: periodMs, ...options }));
  app.use(chatApi);
  listen(app);
}

async function flexible(make) {
  const packaged = (await import("rate-limiter-flexible")).default;
  const limiter = make(packaged);
  behind((key) => resolves(limiter.consume(key)));
}

async function redis() {
  const { Redis } = await import("ioredis");
  return new Redis(process.env.LIMITER_REDIS);
}

async function fastify(options) {
  const { default: makeApp } = await import("fastify");
  const { default: rateLimit } = await import("@fastify/rate-limit");
  const app = makeApp();
  await app.register(rateLimit, { global: false });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", (_request, _body, done) => done(null));
  const handler = (request, answer) => {
    answer.hijack();
    for (const [header, value] of Object.entries(answer.getHeaders())) answer.raw.setHeader(header, value);
    chatApi(request.raw, answer.raw);
  };
  app.post(CHAT, { config: { rateLimit: { max: limit, timeWindow: periodMs, ...options } }, handler });
  app.get(LIST, { handler });
  await app.listen({ port, host: "127.0.0.1" });
}

async function koa(middleware) {
  const { default: Koa } = await import("koa");
  const app = new Koa();
  const limited = await middleware();
  app.use((context, next) => (context.path === CHAT ? limited(context, next) : next()));
  app.use(async (context) => {
    context.respond = false;
    await chatApi(context.req, context.res);
  });
  listen(app);
}

async function hono(standardHeaders) {
  const { Hono } = await import("hono");
  const { getRequestListener } = await import("@hono/node-server");
  const { rateLimiter } = await import("hono-rate-limiter");
  const app = new Hono();
  const keyGenerator = (context) => context.req.header("authorization") ?? "nobody";
  app.post(CHAT, rateLimiter({ limit, windowMs: periodMs, standardHeaders, keyGenerator }));
  app.all("*", async (context) => {
    const { req } = context;
    const { status, type, chunks } = reply(req.method, req.path, req.header("authorization") ?? "", await req.text());
    const body = chunks.length === 1 ? chunks[0] : ReadableStream.from(paced(chunks)).pipeThrough(new TextEncoderStream());
    // A response made here, not by the context, would lose the limiter's headers.
    return context.body(body, status, { "content-type": type });
  });
  listen(createServer(getRequestListener(app.fetch)));
}

const START = {
  "express-rate-limit": () => express({ legacyHeaders: true, standardHeaders: false }),
  "express-rate-limit draft 8": () => express({ legacyHeaders: false, standardHeaders: "draft-8" }),
  "express-rate-limit, failures skipped": () =>
    express({ legacyHeaders: false, standardHeaders: "draft-7", skipFailedRequests: true }),
  "rate-limiter-flexible": () =>
    flexible(({ RateLimiterMemory }) => new RateLimiterMemory({ points: limit, duration: periodMs / 1000 })),
  "rate-limiter-flexible, Redis": async () => {
    const storeClient = await redis();
    await flexible(
      ({ RateLimiterRedis }) => new RateLimiterRedis({ storeClient, points: limit, duration: periodMs / 1000 }),
    );
  },
  "rate-limiter-flexible with a block": () =>
    flexible(
      ({ RateLimiterMemory }) =>
        new RateLimiterMemory({ points: limit, duration: periodMs / 1000, blockDuration: (2 * periodMs) / 1000 }),
    ),
  "rate-limiter-flexible bursty": () =>
    flexible(
      ({ BurstyRateLimiter, RateLimiterMemory }) =>
        new BurstyRateLimiter(
          new RateLimiterMemory({ points: limit, duration: periodMs / 1000 }),
          new RateLimiterMemory({ keyPrefix: "burst", points: limit, duration: (3 * periodMs) / 1000 }),
        ),
    ),
  "@fastify/rate-limit": () => fastify({}),
  "@fastify/rate-limit, exceeding continues": () => fastify({ continueExceeding: true }),
  "koa-ratelimit": () =>
    koa(async () =>
      (await import("koa-ratelimit")).default({ driver: "memory", db: new Map(), duration: periodMs, max: limit }),
    ),
  "koa-ratelimit, Redis": () =>
    koa(async () =>
      (await import("koa-ratelimit")).default({ driver: "redis", db: await redis(), duration: periodMs, max: limit }),
    ),
  "koa2-ratelimit": () =>
    koa(async () =>
      (await import("koa2-ratelimit")).default.RateLimit.middleware({ interval: periodMs, max: limit }),
    ),
  "limiter TokenBucket": async () => {
    const { TokenBucket } = await import("limiter");
    const bucket = new TokenBucket({ bucketSize: limit, tokensPerInterval: limit, interval: periodMs });
    bucket.content = limit;
    behind(() => bucket.tryRemoveTokens(1));
  },
  "limiter RateLimiter": async () => {
    const { RateLimiter } = await import("limiter");
    const limiter = new RateLimiter({ tokensPerInterval: limit, interval: periodMs });
    behind(() => limiter.tryRemoveTokens(1));
  },
  "bottleneck reservoir": async () => {
    const { default: Bottleneck } = await import("bottleneck");
    const limiter = new Bottleneck({
      reservoir: limit,
      reservoirRefreshAmount: limit,
      reservoirRefreshInterval: periodMs,
      highWater: 0,
      strategy: Bottleneck.strategy.OVERFLOW,
    });
    behind(() => resolves(limiter.schedule(async () => {})));
  },
  "hono-rate-limiter": () => hono("draft-6"),
};

if (name === "--names") console.log(Object.keys(START).join("\n"));
else await START[name]();
