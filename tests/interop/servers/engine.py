"""llama.cpp's server with a tiny model of random weights. Prints its address, and serves until killed.

python engine.py MODEL.gguf KEY

It runs in the virtual environment of ``make servers`` and uses no code of the package.
"""

import signal
import string
import sys

import numpy as np
import xllamacpp
from gguf import GGUFWriter, TokenType

MODEL = "random"
SEED = 7
CONTEXT, SLOTS = 4096, 4
WIDTH, FEED_FORWARD, LAYERS, HEADS = 64, 128, 2, 4
BOS, EOS = 1, 2
WORDS = ("the", "of", "and", "to", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are", "with")
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
)


def vocabulary() -> list[tuple[str, TokenType]]:
    """Return the tokens. Those of one byte can split characters, as in real vocabularies."""
    special = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
    single = [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
    texts = ["\u2581", *string.ascii_lowercase, *(f"\u2581{word}" for word in WORDS)]
    return special + single + [(text, TokenType.NORMAL) for text in texts]


def write_model(path: str) -> None:
    """Write a Llama model with random weights."""
    tokens = vocabulary()
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    # Longer tokens have higher scores, so that words are preferred to letters.
    writer.add_token_scores([float(len(text)) for text, _ in tokens])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_chat_template(TEMPLATE)
    draw = np.random.default_rng(SEED)
    shapes = {"token_embd": (len(tokens), WIDTH), "output": (len(tokens), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        shapes |= {f"{block}.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
        shapes |= {f"{block}.{part}_norm": (WIDTH,) for part in ("attn", "ffn")}
        shapes |= {f"{block}.ffn_{part}": (FEED_FORWARD, WIDTH) for part in ("gate", "up")}
        shapes[f"{block}.ffn_down"] = (WIDTH, FEED_FORWARD)
    for name, shape in shapes.items():
        weights = np.ones(shape) if name.endswith("norm") else draw.normal(0, 0.05, shape)
        writer.add_tensor(f"{name}.weight", weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Write the model, serve it, and wait to be killed."""
    path, key = sys.argv[1:]
    write_model(path)
    settings = xllamacpp.CommonParams()
    settings.model.path = path
    settings.model_alias = {MODEL}
    settings.hostnames = ["127.0.0.1"]
    settings.port = 0
    settings.api_keys = [key]
    settings.endpoint_metrics = True
    settings.n_parallel = SLOTS
    settings.n_ctx = SLOTS * CONTEXT
    settings.cpuparams.n_threads = 1
    settings.warmup = False
    settings.verbosity = 0
    settings.sampling.temp = 0.0  # if the request has no temperature: the same prompt gives the same answer
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
