"""Runs where imitation is: load our preference file and train its reward network one epoch."""

import sys
import warnings

import gymnasium
import numpy as np
import torch
from imitation.algorithms.preference_comparisons import (
    BasicRewardTrainer,
    CrossEntropyRewardLoss,
    PreferenceDataset,
    PreferenceModel,
)
from imitation.rewards.reward_nets import BasicRewardNet

warnings.simplefilter("ignore")
torch.manual_seed(0)
dataset = PreferenceDataset.load(sys.argv[1])
columns, preferences = dataset[:]
pairs = list(zip(*columns, strict=True))
first = pairs[0][0]
print(f"{len(dataset)} pairs; fragments of {len(first)} steps, observations {first.obs.shape}, "
      f"the first is preferred in {np.mean(preferences):.2f} of them")  # fmt: skip
spaces = (gymnasium.spaces.Box(-np.inf, np.inf, values.shape[1:]) for values in (first.obs, first.acts))
model = PreferenceModel(BasicRewardNet(*spaces))
loss = CrossEntropyRewardLoss()


def measured(when: str) -> None:
    found = loss.forward(pairs, preferences, model)
    print(f"{when}: loss {found.loss.item():.4f}, accuracy {found.metrics['accuracy'].item():.3f}")


measured("before")
trainer = BasicRewardTrainer(model, loss, rng=np.random.default_rng(0), batch_size=32, epochs=1)
trainer.train(dataset)
measured("after one epoch")
