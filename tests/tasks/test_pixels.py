"""Images: perturbed in their pixels, which stay in their range."""

import pytest
import torch
from tasks.subjects import SUBJECTS, batches
from testbed import FREE, MeanPool, classify, fit, recording, sgd
from torch import Tensor

from lit_adv.attacks.embedding_pgd import AccuracyUnderPGD, EmbeddingPGD
from lit_adv.methods.pgd import PGD
from lit_adv.tasks.place import Pixels


def _images(*values: float) -> dict[str, Tensor]:
    return {"pixel_values": torch.tensor(values, dtype=torch.float64).view(len(values), 1, 1, 1)}


def test_the_nearest_perturbation_within_the_range_is_the_clamped_image():
    place, batch = Pixels(0.0, 1.0), _images(0.0, 0.1, 0.5, 1.0)
    delta = torch.tensor([-0.3, -0.3, 0.2, 0.3], dtype=torch.float64).view(4, 1, 1)
    kept = place.within(batch, delta).flatten()
    torch.testing.assert_close(kept, torch.tensor([0.0, -0.1, 0.2, 0.0]).double())


def test_nothing_leaves_the_ball_where_a_pixel_lies_outside_the_range():
    place, batch = Pixels(0.0, 1.0), _images(-0.5, 1.5)
    delta = torch.tensor([0.1, 0.1], dtype=torch.float64).view(2, 1, 1)
    assert place.within(batch, delta).flatten().tolist() == [0.1, 0.0]


def test_a_range_that_the_images_are_not_in_is_refused():
    with pytest.raises(ValueError, match=r"model\.low=0\.0, model\.high=1\.0: .* from -2 to 0\.5"):
        Pixels().mask(_images(-2.0, 0.5))
    with pytest.raises(ValueError, match=r"model\.low=1\.0, model\.high=0\.0"):
        Pixels(1.0, 0.0)


def test_each_channel_may_have_its_own_range_to_the_last_digit_of_its_type():
    mean, std = torch.tensor([0.485, 0.406]), torch.tensor([0.229, 0.225])
    images = (torch.tensor([0.0, 1.0]).view(2, 1, 1, 1) - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    low, high = ((bound - mean.double()) / std.double() for bound in (0, 1))
    for dtype in (torch.float32, torch.bfloat16):
        place = Pixels(low.tolist(), high.tolist())
        batch = {"pixel_values": images.to(dtype)}
        assert place.mask(batch).shape == (2, 1) and place.width == 2
        kept = place.within(batch, torch.full((2, 1, 2), 9.0))
        room = high.float().view(-1, 1, 1) - images.to(dtype).float()
        torch.testing.assert_close(kept.view(room.shape), room.clamp(min=0))


def test_units_of_word_vectors_are_refused_for_images():
    place, batch = Pixels(), _images(0.5)
    with (
        pytest.raises(ValueError, match=r"method\.relative=true"),
        place.perturbed(batch, torch.zeros(1, 1, 1), relative=True),
    ):
        pass


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", ["mlp", "convolutional", "vit"])
def test_pgd_is_projected_gradient_ascent_of_the_pixels(name: str, norm: str):
    """Written out on the images themselves, step by step."""
    steps, step_size, radius = 3, 0.2, 0.3
    task, (batch,) = SUBJECTS[name].build(0.0), batches(name, 1)
    start = batch["pixel_values"]
    x = start.clone()
    for _ in range(steps):
        x.requires_grad_()
        losses = task.losses(task({**batch, "pixel_values": x}), batch)
        (grad,) = torch.autograd.grad(losses.sum(), x)
        if norm == "linf":
            moved = (x - start + step_size * grad.sign()).clamp(-radius, radius)
        else:
            length = grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            moved = x - start + step_size * grad / length
            length = moved.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            moved = torch.where(length > radius, moved * radius / length, moved)
        x = (start + moved).clamp(0, 1).detach()

    module = recording(PGD)(task, sgd(), steps=steps, step_size=step_size, radius=radius, norm=norm)
    fit(module, [batch])
    found = start + module.deltas[-1].view(start.shape)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-12)
    assert bool((x == 0).any() | (x == 1).any())  # the range did limit something


def test_the_range_of_images_limits_no_words():
    task = classify(MeanPool())
    delta = torch.full((1, 2, 4), 100.0)
    assert task.within({}, delta) is delta


@pytest.mark.parametrize("name", ["mlp", "convolutional"])
def test_an_attack_by_pgd_stays_in_the_range_and_finds_what_training_sees(name: str):
    task, (batch,) = SUBJECTS[name].build(0.0), batches(name, 1)
    seen: list[Tensor] = []
    hook = task.network.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["pixel_values"].detach()), with_kwargs=True
    )
    robust = AccuracyUnderPGD(EmbeddingPGD(radius=0.3, step_size=0.1, steps=5, norm="linf"))
    robust.update(task, batch)
    hook.remove()
    assert len(seen) == 6
    assert all(bool(((x >= 0) & (x <= 1)).all()) for x in seen)
    assert max(float((x - batch["pixel_values"]).abs().max()) for x in seen) == pytest.approx(0.3)
    wrong = torch.stack(
        [task({**batch, "pixel_values": x}).argmax(1) != batch["labels"] for x in seen]
    )
    assert robust.compute() == 1 - wrong.any(0).float().mean()


def test_free_at_takes_a_perturbation_from_one_image_to_the_next_within_the_range():
    task, data = SUBJECTS["mlp"].build(0.0), batches("mlp", 3)
    module = FREE(task, sgd(), persist=True, step_size=0.5, radius=0.9, norm="linf")
    fit(module, data)
    for batch, delta in zip(data, module.deltas[::3], strict=True):
        x = batch["pixel_values"].flatten(1).unsqueeze(1) + delta
        assert bool(((x >= -1e-12) & (x <= 1 + 1e-12)).all())
    assert bool((module.deltas[3] != 0).any())
