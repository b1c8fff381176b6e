"""Multiple choice: a question with several answers, one of them right."""

from torch import nn

from lit_adv.tasks.classification import Classification
from lit_adv.tasks.place import Place


class MultipleChoice(Classification):
    """Cross-entropy over an example's choices, which are classes that have no names.

    A batch's texts are [batch, choices, tokens]. The choices of an example are perturbed together,
    as one text: its radius is that of all of them.

    Args:
        network: a model for multiple choice, which answers [batch, choices].
        choices: of each example, at least 2.
        at: see Task.
        special_tokens: see Task.
        label_smoothing: share of the target that all choices have alike.
    """

    several_texts = True

    def __init__(
        self,
        network: nn.Module,
        *,
        choices: int,
        at: str | Place | None = None,
        special_tokens: str = "perturb",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            network,
            num_labels=choices,
            at=at,
            special_tokens=special_tokens,
            label_smoothing=label_smoothing,
        )
