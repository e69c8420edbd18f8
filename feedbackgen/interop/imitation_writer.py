"""Run by an interpreter that has imitation: arrays to its own pickle of preferences, or its folder of trajectories.

Knows nothing of feedbackgen, which need not be installed there. Arguments: the npz that
`feedbackgen.interop.imitation_preferences` writes, and the target.
"""

import sys

import numpy as np

NO_IMITATION = 3  # exit code


def write(arrays, target: str) -> None:
    """Write ``PreferenceDataset.save``'s pickle where there are preferences, else ``serialize.save``'s folder.

    Args:
        arrays: ``observations`` of all trajectories in a row, one more than steps each; their ``actions``, ``rewards``;
            ``lengths`` in steps; ``terminal``; and perhaps ``preferences`` (P,), P(first preferred), of 2 P
            trajectories, first all first fragments, then all second.
        target: the file or folder.
    """
    from imitation.data.types import TrajectoryWithRew

    ends = np.cumsum(arrays["lengths"])
    trajectories = [
        TrajectoryWithRew(
            obs=arrays["observations"][end - length + index : end + index + 1],
            acts=arrays["actions"][end - length : end],
            infos=None,
            terminal=bool(terminal),
            rews=arrays["rewards"][end - length : end],
        )
        for index, (end, length, terminal) in enumerate(zip(ends, arrays["lengths"], arrays["terminal"], strict=True))
    ]
    if "preferences" not in arrays:
        from imitation.data import serialize

        serialize.save(target, trajectories)
        return
    from imitation.algorithms.preference_comparisons import PreferenceDataset

    n_pairs = len(arrays["preferences"])
    dataset = PreferenceDataset()
    dataset.push(list(zip(trajectories[:n_pairs], trajectories[n_pairs:], strict=True)), arrays["preferences"])
    dataset.save(target)


if __name__ == "__main__":
    try:
        import imitation  # noqa: F401
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_IMITATION)
    with np.load(sys.argv[1]) as archive:
        write({name: archive[name] for name in archive.files}, sys.argv[2])
