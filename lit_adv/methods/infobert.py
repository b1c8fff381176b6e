"""InfoBERT: Wang et al., ICLR 2021, arXiv:2010.02329."""

import math

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from lit_adv import layers, padding
from lit_adv.adapters import inner
from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.direction import sees_ahead
from lit_adv.finetuner import FineTuner
from lit_adv.functional import ball
from lit_adv.functional.information import bottleneck, contrast, rank
from lit_adv.onset import Options
from lit_adv.ranges import at_least, whole
from lit_adv.recipe import LATER
from lit_adv.tasks.place import Words
from lit_adv.tasks.task import Batch, Task


class InfoBERT(FineTuner):
    """FreeLB plus `beta * bottleneck - alpha * I(stable words; sentence)`, in each of its passes.

    Bottleneck: `mean 1/2 ||x - x'||^2` over pairs of real tokens of the batch, x the perturbed
    embeddings: an upper bound on the information that they keep of the input. The other term is an
    InfoNCE bound between the embeddings of those words whose gradients rank from `low` to `high`
    (of the example's, from the smallest) and the vector of their own sentence, against those of
    the batch's other sentences; its critic, a small network, is trained along. The sentence vector
    is the last hidden state at the first token, so the network has to be an encoder.

    The authors' code (AI-secure/InfoBERT 9ac17f9) takes embeddings after positions and norm, ranks
    by a gradient that contains the bottleneck's, loops over tokens on the host, and contrasts
    chunks of pairs of any sentences; TextDefender (06a5068) never trains the critic.

    Passes per batch, K = steps: K forward, 2K backward to the input, K to the weights.

    Args:
        task: the network and its losses; the network has a `base_model`.
        descent: how the weights descend.
        steps: K, training passes per batch.
        step_size: length of one ascent, in units of the word embeddings.
        radius: epsilon, per example; 0 = no perturbation, inf = unlimited.
        init_size: sigma, of the uniform start.
        alpha: weight of the information between words and sentence; 0 = none.
        beta: weight of the bottleneck; 0 = none.
        low: share of an example's words, by the size of their gradients, that lie below.
        high: share up to which they are taken.
        options: see FineTuner.

    Raises:
        ValueError: one of the arguments lies outside its range, or the network has no base_model
            or is no encoder.
    """

    def __init__(
        self,
        task: Task = LATER,
        descent: Descent | None = None,
        *,
        steps: int = 3,
        step_size: float = 0.05,
        radius: float = 0.1,
        init_size: float = 0.05,
        alpha: float = 0.005,
        beta: float = 0.005,
        low: float = 0.5,
        high: float = 0.9,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(task, descent, **options)
        self.steps = whole(1, "method.steps", steps)
        self.step_size = at_least(0, "method.step_size", step_size)
        self.radius = at_least(0, "method.radius", radius)
        self.init_size = at_least(0, "method.init_size", init_size)
        self.alpha = at_least(0, "method.alpha", alpha)
        self.beta = at_least(0, "method.beta", beta)
        if not 0 <= low < high <= 1:
            raise ValueError(f"method.low={low}, method.high={high}: need 0 <= low < high <= 1")
        self.low, self.high = low, high
        if not isinstance(task.place, Words):
            raise ValueError("method=infobert: images have no words; choose another method")
        if task.several_texts:
            raise ValueError(
                f"method=infobert: {type(task).__name__} has several texts per example, and the "
                "words of one belong to its own sentence; choose another method"
            )
        base = getattr(inner(task.network), "base_model", None)
        config = getattr(task.network, "config", None)
        width = getattr(config, "hidden_size", None)
        if not isinstance(base, nn.Module) or width is None:
            raise ValueError(
                f"method=infobert: {type(task.network).__name__} has no base_model with hidden "
                "states; use an encoder of transformers"
            )
        if padding.side(task.network) == "left" or not sees_ahead(task.network):
            raise ValueError(
                f"method=infobert: what {type(task.network).__name__} says at the first token does "
                "not depend on the whole text; use an encoder of transformers, as BERT"
            )
        self._base = (base,)
        stream = torch.random.get_rng_state()
        self.critic = Critic(task.width, width).to(next(task.parameters()))
        torch.random.set_rng_state(stream)  # dropout is as in any other method

    @property
    def cost(self) -> Cost:
        return Cost(self.steps, 2 * self.steps, self.steps)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        share = 1 / self.steps
        delta = self.sample(batch, self.init_size, self.radius)  # delta_0
        with self.one_batch():
            for left in reversed(range(self.steps)):
                with (
                    layers.captured(self._base[0]) as hidden,
                    layers.captured(self.task.embeddings) as words,
                ):
                    losses = self.losses(batch, delta.requires_grad_())  # L(e + delta_t)
                (grad,) = torch.autograd.grad(losses.sum(), delta, retain_graph=True)
                last = hidden[0] if isinstance(hidden[0], Tensor) else hidden[0][0]
                # A network that reads in blocks has padded the texts.
                perturbed = words[0][:, : delta.shape[1]] + delta.to(words[0].dtype)
                penalty = None
                if self.alpha or self.beta:
                    penalty = share * self.information(batch, grad, perturbed, last[:, 0])
                self.note("loss/adversarial", losses.mean())
                if not left:
                    self.descend(batch, losses, share=share, penalty=penalty, delta=delta)
                    break
                self.accumulate(batch, losses, share, penalty=penalty)
                delta = self.ascend(batch, delta, grad, self.step_size, self.radius)
        return None

    def information(self, batch: Batch, grad: Tensor, words: Tensor, sentences: Tensor) -> Tensor:
        """`beta * bottleneck - alpha * InfoNCE`, the same for every example, [batch]."""
        mask = self.task.mask(batch)
        total = words.new_zeros(())
        if self.beta:
            total = total + self.beta * bottleneck(words, mask, self.noise)
        if self.alpha:
            most = math.ceil(self.high * mask.shape[1]) - math.ceil(self.low * mask.shape[1]) + 1
            place, chosen = rank(
                ball.lengths(grad, per="token").squeeze(-1), mask, self.low, self.high, most
            )
            stable = words.gather(1, place.unsqueeze(-1).expand(-1, -1, words.shape[-1]))
            total = total - self.alpha * contrast(self.critic(stable, sentences), chosen)
        return total.expand(len(mask))


class Critic(nn.Module):
    """Scores every pair of a word and a sentence: softplus of a network of one hidden layer.

    Args:
        words: width of a word.
        sentences: width of a sentence.
        hidden: units.
    """

    def __init__(self, words: int, sentences: int, hidden: int = 300) -> None:
        super().__init__()
        self.words = nn.Linear(words, hidden)
        self.sentences = nn.Linear(sentences, hidden, bias=False)
        self.score = nn.Linear(hidden, 1)

    def forward(self, words: Tensor, sentences: Tensor) -> Tensor:
        """[batch, tokens, width], [batch, width] -> [batch, tokens, batch]."""
        # One product each instead of one for every pair.
        pairs = self.words(words).unsqueeze(2) + self.sentences(sentences)
        return nn.functional.softplus(self.score(pairs.relu())).squeeze(-1)
