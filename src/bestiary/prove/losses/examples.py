"""What training examples are made of texts: masks, spans, blanks, labels by role, packed rows."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from ...load import load
from ...text import prompts
from ...text.chat import ChatTemplate
from ...text.tokenizer import open_tokenizer
from ...train.objectives import blanks, masked, next_token, packing, spans
from .case import Case

# What the cases of GLM say of their tokens: the masks by task, <sop>, <eop>, [EOS], ends of sentences.
_MASKS = {"bert": 10, "generation": 11, "gpt": 11, "gap_sentence": 12, "sentence": 12}
_SOP, _EOP, _EOS, _STOPS = 13, 14, 16, (20, 21)
_MASK = 14  # of BERT's first case
_IGNORED = next_token.IGNORED


def bert_mlm(case: Case) -> None:
    """Compare the masked tokens, and how many of each kind a large sample had."""
    drawn = {name: case[f"draw_{name}"].bool() for name in ("masked", "replace", "random")}
    draws = masked.Draws(drawn["masked"], drawn["replace"], drawn["random"], case["draw_words"])
    read, labels = masked.masked(case["tokens"], draws, _MASK)
    case.check("input_ids", read)
    case.check("labels", labels)
    case.require("special_tokens_mask", not (draws.chosen & case["special_tokens_mask"].bool()).any())
    eligible, *parts = case["stats.counts"].tolist()
    theirs = [parts[0] / eligible, *(part / parts[0] for part in parts[1:])]
    near = all(abs(a - b) < 0.01 for a, b in zip(theirs, _shares(), strict=True))
    case.require("stats.counts", near)


def _shares() -> list[float]:
    """Return what share of many tokens our own draws choose; and of those hide, change and keep."""
    tokens = torch.full((2000, 100), -1)
    draws = masked.draw(torch.zeros_like(tokens).bool(), 400, torch.Generator().manual_seed(0))
    read, labels = masked.masked(tokens, draws, _MASK)
    said = labels != _IGNORED
    kinds = (said, read == _MASK, said & (read != _MASK) & (read != tokens), said & (read == tokens))
    chosen = said.sum().item()
    return [kind.sum().item() / (chosen if place else tokens.numel()) for place, kind in enumerate(kinds)]


def bert_wwm(case: Case) -> None:
    """Compare masks of whole words, and of pieces, with Python's own draws."""
    for name, how in case.variants.items():
        tokens, starts = case[f"{name}.tokens"].tolist(), case[f"{name}.word_start"].bool().tolist()
        special = [token in (2, 3) for token in tokens]  # [CLS] and [SEP]
        words = masked.words(starts=starts, special=special)
        if not how["do_whole_word_mask"]:
            words = [[place] for word in words for place in word]
        choose = masked.WordMasks(
            case.meta["vocab_size"],
            case.meta["mask_id"],
            how["masked_lm_prob"],
            how["max_predictions_per_seq"],
        )
        read, places = choose(tokens, words, random.Random(how["seed"]))  # noqa: S311 (no secret)
        case.check(f"{name}.output_tokens", read)
        case.check(f"{name}.masked_lm_positions", places)
        case.check(f"{name}.masked_lm_labels", [tokens[place] for place in places])


def t5_span(case: Case) -> None:
    """Compare sources and answers of given noise, how much of it there is, and how long a text is taken."""
    end = torch.ones(1, dtype=torch.int64)
    for name, how in case.variants.items():
        noise = case[f"{name}.noise_mask"].bool()
        made = dict(
            zip(("inputs", "targets"), spans.corrupted(case[f"{name}.tokens"], noise, 1100), strict=True)
        )
        for key, tokens in made.items():
            case.check(f"{name}.{key}", tokens)
            case.check(f"{name}.{key}_eos", torch.cat((tokens, end)))
        case.check(f"{name}.decoder_input_ids", spans.shifted_right(torch.cat((made["targets"], end))))
        law = spans.SpanNoise(how["noise_density"], how["mean_noise_span_length"])
        drawn = law.draw(how["length"], torch.Generator().manual_seed(0))
        counts = (how["num_noise_tokens"], how["num_noise_spans"])
        same = law.counts(how["length"]) == counts == (int(drawn.sum()), int(_starts(drawn)))
        case.check(f"{name}.noise_mask", noise if same else ~noise)
    key = "helper.inputs_length_density1000_mean10_tokens_length_targets_length"
    rows = [
        [source, density, mean, *spans.SpanNoise(density / 1000, mean / 10).fill(source)]
        for source, density, mean, *_ in case[key].tolist()
    ]
    case.check(key, torch.tensor(rows))


def _starts(noise: Tensor) -> Tensor:
    return (noise[1:] & ~noise[:-1]).sum() + noise[0]


def glm_blocks(case: Case) -> None:
    """Compare blanks, their order, positions and masks; and whole batches with Python's own draws."""
    for name, how in case.variants.items():
        if "mode" in how:
            _batch(case, name, how["mode"])
            continue
        tokens = case[f"{name}.tokens"]
        order = [tuple(span) for span in case[f"{name}.spans_in_target_order"].tolist()]
        case.check(f"{name}.spans", torch.tensor(sorted(order)))
        made = blanks.blanked(tokens, order, _marks(how["task"]))
        if not how.get("block_position_encoding", True):
            made = blanks.without_order(made)
        case.check(f"{name}.input_ids", made.ids)
        case.check(f"{name}.labels", made.labels.where(made.labels != _IGNORED, made.ids))
        case.check(f"{name}.loss_mask", made.labels != _IGNORED)
        case.check(f"{name}.position_ids", made.positions)
        case.check(f"{name}.sep", made.text)
        case.check(f"{name}.attention_mask_matrix", made.seen)


def _marks(task: str) -> blanks.Marks:
    return blanks.Marks(_MASKS[task], _SOP, _EOP)


def _batch(case: Case, name: str, mode: str) -> None:
    """Make a batch of three texts as the strategy does, its draws from Python's Random(0)."""
    samples, rng = [case[key] for key in case.keys(f"{name}.sample")], random.Random(0)  # noqa: S311 (no secret)
    for _ in ("cut short", "one span", "mode"):
        rng.random()
    lengths = [len(sample) for sample in samples]
    marks, made = _marks(mode), list[blanks.Blanked]()
    longest = rng.randint(min(lengths) // 2, max(lengths) - 2) if mode == "gpt" else 0
    for sample, length in zip(samples, lengths, strict=True):
        if mode == "bert":
            drawn = blanks.draw_blanks(length, rng)
        elif mode == "sentence":
            drawn = blanks.draw_sentences(sample.tolist(), _STOPS, _EOS, rng)
        else:
            taken = min(longest, length - 2)
            if rng.random() < case.variants[name]["gpt_infill_prob"]:
                made.append(blanks.continued(sample, length - taken, marks))
                continue
            drawn = blanks.draw_places([taken], length, rng)
        made.append(blanks.blanked(sample, drawn, marks))
    batch = blanks.batch(made)
    learned = batch.labels != _IGNORED
    text = torch.arange(batch.ids.shape[1]) < batch.text[:, None]
    case.check(f"{name}.text", batch.ids)
    case.check(f"{name}.target", batch.labels.where(learned, batch.ids.where(text, 0)))
    case.check(f"{name}.loss_mask", learned)
    case.check(f"{name}.position_id", batch.positions)
    case.check(f"{name}.attention_mask", batch.text)
    case.check(f"{name}.attention_mask_matrix", batch.seen)


def sft_alpaca(case: Case) -> None:
    """Compare ids and labels of Alpaca's examples."""
    tokenizer, wanted = open_tokenizer(case.folder), case.meta["prompts"]
    if tokenizer.bos is None or tokenizer.eos is None:
        raise TypeError("LLaMA's tokenizer has both")
    rows = []
    for i, example in enumerate(case.meta["examples"]):
        prompt = wanted["prompt_input" if example.get("input") else "prompt_no_input"].format_map(example)
        source = [tokenizer.bos, *tokenizer.encode(prompt)]
        case.check(f"source_ids.{i}", source)
        ids = [tokenizer.bos, *tokenizer.encode(prompt + example["output"]), tokenizer.eos]
        whole = torch.tensor(ids[: case.meta["model_max_length"]])
        rows.append((whole, next_token.completion(whole, len(source))))
    _padded(case, "", rows, case.meta["pad_token_id"])


def sft_vicuna(case: Case) -> None:
    """Compare ids and labels of Vicuna's conversations, as the roster's format writes them.

    FastChat's later script loses the first token of every answer, and its end; Vicuna was trained by the
    first one.
    """
    tokenizer = open_tokenizer(case.folder)
    template, end = ChatTemplate(prompts.get("vicuna-v1.1"), tokenizer), tokenizer.eos or 0
    names = {"human": "user", "gpt": "assistant"}
    rows, later = [], []
    for said in case.meta["conversations"]:
        turns = said[said[0]["from"] != "human" :]
        messages = [{"role": names[turn["from"]], "content": turn["value"]} for turn in turns]
        ids = torch.tensor(template.encode(messages, generation=False).ids)
        asked = [f"USER: {message['content']} ASSISTANT:" for message in messages[::2]]
        asked[0] = f"{case.meta['system']} {asked[0]}"
        counts = [len(tokenizer.encode(text)) for text in asked]
        labels = next_token.by_turns(ids, [counts[0] + 1, *counts[1:]], end)
        rows.append((ids, labels))
        first = torch.cat((labels[:1], labels[:-1])) == _IGNORED
        later.append((ids, labels.where(~first & (labels != end), _IGNORED)))
    _padded(case, "", rows, 0)
    _padded(case, "with_template.", later, 0)


def _padded(case: Case, start: str, rows: Sequence[tuple[Tensor, Tensor]], padding: int) -> None:
    shape = case[f"{start}input_ids"].shape
    ids, labels = torch.full(shape, padding), torch.full(shape, _IGNORED)
    real = torch.zeros(shape, dtype=torch.bool)
    for row, (own, wanted) in enumerate(rows):
        ids[row, : len(own)], labels[row, : len(own)], real[row, : len(own)] = own, wanted, True
    case.check(f"{start}input_ids", ids)
    case.check(f"{start}labels", labels)
    case.check(f"{start}attention_mask", real)


def packed(case: Case) -> None:
    """Compare a packed row, its logits and its loss, with documents that were computed alone."""
    bounds, row = case["cu_seq_lens"], case["input_ids"][0]
    documents = row.split(torch.diff(bounds).tolist())
    lengths = [len(document) for document in documents]
    made = packing.pack(documents, case["doc_labels"][0].split(lengths))
    case.check("cu_seq_lens", made.bounds)
    case.check("labels", made.labels)
    case.check("position_ids", made.positions)
    case.check("seq_idx", made.documents)
    case.check("attention_matrix", made.seen[0])
    loaded = load(case.folder)
    logits = loaded.decoder(made.ids, made.context())
    loss = next_token.next_token(logits, made.labels)
    case.check("logits", logits)
    case.check("loss", loss)
    table = dict(loaded.model.named_parameters())["embed.weight"]
    case.check_gradients(loss, {"grad_embed_tokens": table})
