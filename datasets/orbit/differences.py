"""How a tree of ORBIT's videos differs from the published benchmark (protocol sections 1.2 and 7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lite_bench.datasets.orbit.published import PublishedObject, published_users
from lite_bench.datasets.orbit.videos import UserObject
from lite_bench.harness.core import Split

Users = Mapping[str, Sequence[UserObject]]


def differences(users: Mapping[Split, Users], *, synthetic: bool) -> tuple[str, ...]:
    """Compare users, objects, numbers of videos and frames of clutter videos with those that are published.

    Objects are known by their token, the spelling inside video names, because folders may be spelled otherwise.

    Args:
        users: split -> user -> objects; a split that is not given is not compared.
        synthetic: it is a stand-in, whose numbers of frames do not count.

    Returns:
        a sentence for each difference, which begins with split, user and object.
    """
    return tuple(text for split, found in users.items() for text in _of_split(split, found, frames=not synthetic))


def _of_split(split: Split, found: Users, *, frames: bool) -> Iterator[str]:
    published = published_users()[split]
    for user in sorted({*published, *found}):
        place = f"{split}/{user}"
        if user not in found:
            yield f"{place}: this user of the benchmark is missing."
        elif user not in published:
            yield f"{place}: the benchmark has no such user in this split."
        else:
            yield from _of_user(place, found[user], published[user], frames=frames)


def _of_user(
    place: str, found: Sequence[UserObject], published: Sequence[PublishedObject], *, frames: bool
) -> Iterator[str]:
    by_token: dict[str, UserObject] = {}
    for each in found:
        tokens = sorted({video.token for video in (*each.clean, *each.clutter)})
        if len(tokens) != 1:
            yield f"{place}/{each.name}: this folder mixes videos of the objects {', '.join(tokens)}."
        for token in tokens:
            if token in by_token:
                yield f"{place}/{each.name}: videos of {token} are also in the folder {by_token[token].name}."
            by_token.setdefault(token, each)
    known = {each.token: each for each in published}
    for token in sorted({*known, *by_token}):
        if token not in by_token:
            yield f"{place}/{token}: this object of the benchmark is missing."
        elif token not in known:
            yield f"{place}/{by_token[token].name}: the benchmark's user has no object {token}."
        else:
            yield from _of_object(f"{place}/{by_token[token].name}", by_token[token], known[token], frames=frames)


def _of_object(place: str, found: UserObject, published: PublishedObject, *, frames: bool) -> Iterator[str]:
    counts = (("clean", len(found.clean), published.clean), ("clutter", len(found.clutter), len(published.clutter)))
    for kind, count, right in counts:
        if count != right:
            yield f"{place}: has {count} {kind} videos, and the benchmark's has {right}."
    if not frames or len(found.clutter) != len(published.clutter):
        return
    for video, (n_frames, _) in zip(found.clutter, published.clutter, strict=True):
        if video.n_frames != n_frames:
            yield f"{place}: {video.name} has {video.n_frames} frames, and the benchmark's has {n_frames}."
