"""Objectives: what a model is made to do, as functions of plain tensors, one file a subject.

    next_token      the next token; which tokens an answer's loss counts
    packing         several documents in a row that do not see each other
    masked          BERT: masked tokens and whole words
    spans           T5: spans that a sentinel stands for
    blanks          GLM: blanks that are filled one after another
    translation     the Transformer of 2017: pairs and smoothed labels
    conditioned     OpenChat: weighted answers told apart by condition, and their packing
    preference      DPO and its kin, KTO, ORPO, SimPO and CPO
    ranking         reward models of pairs, RRHF
    reinforce       PPO: penalties, advantages, losses
    experts         balancing losses of mixtures of experts

Losses are float32 and differentiable; what is only worth a line in a log is returned detached.
"""
