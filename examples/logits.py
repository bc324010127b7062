"""Use the model itself: tokens and a context in, logits out; nothing hidden, nothing remembered."""

import sys

import torch

from bestiary import LLM
from bestiary.context import Cache, Full, Stream

llm = LLM(*sys.argv[1:2])
tokens = torch.tensor([llm.tokenizer.encode("The quick brown fox jumps over the lazy")])  # (B, T)
count = tokens.shape[1]
with torch.inference_mode():
    whole = llm.model(tokens, Full.of(tokens))  # (B, T, vocabulary), all at once
    cache = Cache.empty(llm.model, 1, count)
    llm.model(tokens[:, :-1], Stream.at(cache, 0, count - 1))
    last = llm.model(tokens[:, -1:], Stream.at(cache, count - 1, 1))  # the last one over what is cached
print("most likely next:", repr(llm.tokenizer.decode([int(whole[0, -1].argmax())], continues=True)))
print("the same with a cache, within", f"{(whole[:, -1:] - last).abs().max():.0e}")
