"""Score texts: how surprised is the model, token by token and on the whole?"""

import sys

from bestiary import LLM
from bestiary.run.score import log_likelihoods, perplexity

llm = LLM(*sys.argv[1:2])
for text in ("The cat sat on the mat and purred.", "Mat the on and sat purred cat the."):
    ids = llm.tokenizer.encode(text)
    scores = log_likelihoods(llm.model, ids)
    worst = ids[1 + int(scores.argmin())]
    print(f"{perplexity(llm.model, ids):10.1f}   {text}   (least expected: {llm.tokenizer.piece(worst)!r})")
