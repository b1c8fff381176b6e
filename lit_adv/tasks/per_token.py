"""What tasks with an answer for every token have in common."""

from torch import Tensor, nn

from lit_adv.functional import divergence
from lit_adv.functional.token_mean import token_mean
from lit_adv.tasks.cross_entropy import IGNORED, CrossEntropy
from lit_adv.tasks.place import Place
from lit_adv.tasks.task import Batch, Task


class PerToken(Task):
    """An example's loss is the mean over its labelled tokens, and so is its divergence.

    Each example counts the same, however many tokens it has labels for: the mean over a batch does
    not depend on how it is cut into micro-batches or dealt out to processes, and a flood level is
    in nats per token. An example without any label has a loss of zero, which counts.

    Args:
        network: a model that answers with logits for every token.
        cross_entropy: of one token.
        at: see Task.
        special_tokens: see Task.
    """

    def __init__(
        self,
        network: nn.Module,
        cross_entropy: CrossEntropy,
        *,
        at: str | Place | None = None,
        special_tokens: str = "perturb",
    ) -> None:
        super().__init__(network, at=at, special_tokens=special_tokens)
        self.cross_entropy = cross_entropy

    def of_answers(self, per_token: Tensor) -> Tensor:
        """From something for every token to what belongs to the network's answers."""
        return per_token

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        labels = self.of_answers(batch["labels"])
        values = self.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return token_mean(values.view(labels.shape), self.counted(batch))

    def counted(self, batch: Batch) -> Tensor:
        """The answers that have a label, [batch, answers]."""
        return self.of_answers(batch["labels"]) != IGNORED

    def divergence(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        values = divergence.symmetric_kl(p.flatten(0, 1), q.flatten(0, 1))
        return token_mean(values.view(p.shape[:2]), self.compared(batch))

    def towards(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        values = divergence.kl(q.detach().flatten(0, 1), p.flatten(0, 1))
        return token_mean(values.view(p.shape[:2]), self.compared(batch))

    def compared(self, batch: Batch) -> Tensor:
        """The answers that are compared, [batch, answers]: with a label; if there are none, all."""
        if "labels" in batch:
            return self.counted(batch)
        return self.of_answers(batch["attention_mask"]).bool()
