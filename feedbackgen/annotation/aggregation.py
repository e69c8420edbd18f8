"""Several annotators' labels of a question made one: by majority, or by how reliable each annotator shows to be."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

Said = tuple[int, str, float]  # question, annotator, label
MAX_ROUNDS = 200
CONVERGED = 1e-8  # change of a probability between rounds
PRIOR = 1.0  # pretended answers: an annotator of few answers is not thought perfect, nor hopeless


def majority(said: Sequence[Said]) -> dict[int, float]:
    """The label that most gave to each question; a question without a single such label is left out."""
    votes: dict[int, Counter[float]] = {}
    for question, _, label in said:
        votes.setdefault(question, Counter())[label] += 1
    labels = {}
    for question, counts in votes.items():
        (first, n_first), *others = counts.most_common(2)
        if not others or n_first > others[0][1]:
            labels[question] = first
    return labels


def dawid_skene(said: Sequence[Said]) -> dict[int, float]:
    """The likeliest label of each question, with each annotator's rates of confusion estimated along.

    Expectation maximisation from the shares of votes. Rows of a confusion matrix get a pretended answer, most of it
    right, without which an annotator of one answer would be believed altogether. Equally likely labels leave a question
    out, as a tie of votes does.

    Source: Dawid and Skene, 1979, equations 2.3 to 2.5.
    """
    if not said:
        return {}
    questions = list(dict.fromkeys(question for question, _, _ in said))
    annotators = list(dict.fromkeys(annotator for _, annotator, _ in said))
    labels = sorted({label for _, _, label in said})
    counts = np.zeros((len(questions), len(annotators), len(labels)))
    at = {question: index for index, question in enumerate(questions)}, {a: i for i, a in enumerate(annotators)}
    for question, annotator, label in said:
        counts[at[0][question], at[1][annotator], labels.index(label)] += 1
    prior = PRIOR * (np.eye(len(labels)) * 0.5 + 0.5 / len(labels))
    posterior = counts.sum(axis=1) / counts.sum(axis=(1, 2))[:, None]
    for _ in range(MAX_ROUNDS):
        confusion = np.einsum("qt,qal->atl", posterior, counts) + prior
        confusion /= confusion.sum(axis=2, keepdims=True)
        share = posterior.mean(axis=0)
        log_likelihood = np.einsum("qal,atl->qt", counts, np.log(confusion)) + np.log(np.maximum(share, 1e-300))
        likelihood = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
        before, posterior = posterior, likelihood / likelihood.sum(axis=1, keepdims=True)
        if np.abs(posterior - before).max() < CONVERGED:
            break
    ranked = np.sort(posterior, axis=1)
    clear = ranked[:, -1] - (ranked[:, -2] if len(labels) > 1 else 0) > 1e-6
    return {
        question: float(labels[int(np.argmax(row))])
        for question, row, is_clear in zip(questions, posterior, clear, strict=True)
        if is_clear
    }
