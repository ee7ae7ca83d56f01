"""Features of a video's frames, averaged over a window that ends at each frame.

Each frame goes through the network once, and a moving mean over the features does the rest: the same as running the
network on all frames of every window, for a fraction of the cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass
class MovingMean:
    """Averages features over the last ``window`` items of a group, batch by batch in the order of the items.

    Before a group's first item, that item is repeated (ORBIT's protocol: frame t is classified from frames t-7 to t).

    Attributes:
        window: items in a window, at least 1.
    """

    window: int
    _rows: Tensor | None = field(default=None, init=False)
    _groups: Tensor | None = field(default=None, init=False)

    def __call__(self, features: Float[Tensor, "M D"], groups: Int[Tensor, " M"]) -> Float[Tensor, "M D"]:
        """Average the next items.

        Args:
            features: of the items, in order.
            groups: number of each item's group; a group's items follow each other, in one or several batches.
        """
        if self.window == 1:
            return features
        groups = groups.to(features.device)
        rows = features if self._rows is None else torch.cat([self._rows, features])
        of_row = groups if self._groups is None else torch.cat([self._groups, groups])
        self._rows, self._groups = rows[1 - self.window :], of_row[1 - self.window :]
        position = torch.arange(len(rows), device=rows.device)
        begins = torch.ones_like(of_row, dtype=torch.bool)
        begins[1:] = of_row[1:] != of_row[:-1]
        # Rows kept from earlier batches begin a group too early only if a whole window of the group follows.
        first = torch.where(begins, position, 0).cummax(0).values
        own = position[len(rows) - len(features) :].unsqueeze(1)
        back = torch.arange(self.window - 1, -1, -1, device=rows.device)
        return rows[torch.maximum(own - back, first[own])].mean(1)
