"""Streaming accordance against all pairs one by one; what it holds, refuses, and leaves alone."""

import copy
import gc
import io
import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from itertools import permutations
from types import FunctionType, ModuleType
from typing import Any, Literal

import pytest
import torch
from functional import pairs
from functional.pairs import Batches, Parts
from torch import Tensor

from lit_adv.functional.accordance import Accordance
from lit_adv.functional.sketch import CountSketch

Normalize = Literal["cosine", "none"]

NORMALIZE = pytest.mark.parametrize("normalize", ["cosine", "none"])
MATRIX = pytest.mark.parametrize("matrix", [True, False], ids=["matrix", "no_matrix"])

FORMS: dict[str, Callable[[Mapping[Any, Parts]], Any]] = {
    "tensor": lambda batch: {c: pairs.flat(parts) for c, parts in batch.items()},
    "list": lambda batch: batch,
    "tuple": lambda batch: {c: tuple(parts) for c, parts in batch.items()},
    "pairs": lambda batch: list(batch.items()),
    "one_at_a_time": lambda batch: ((c, parts) for c, parts in batch.items()),
}


def stream(batches: Batches, normalize: Normalize = "cosine", **options: Any) -> Accordance:
    """All of them, one after the other."""
    accordance = Accordance(normalize, **options)
    for batch in batches:
        accordance.update(batch)
    return accordance


def agree(found: Mapping[str, Any], wanted: Mapping[str, Any], error: float = 1e-10) -> None:
    """Both say the same of all means; the matrix of `wanted` is by pairs of classes."""
    for name in (*pairs.KINDS, "within"):
        assert found[name] == pytest.approx(wanted[name], rel=0, abs=error, nan_ok=True), name
    assert found["pairs"] == wanted["pairs"] and found["batches"] == wanted["batches"]
    if "matrix" in found:
        assert by_pairs(found) == pytest.approx(wanted["matrix"], rel=0, abs=error)


def by_pairs(found: Mapping[str, Any]) -> dict[tuple[int, int], float]:
    """The matrix, where there are pairs."""
    labels, matrix = found["classes"], found["matrix"]
    assert matrix.shape == (len(labels), len(labels))
    return {
        (a, b): float(matrix[i, j])
        for i, a in enumerate(labels)
        for j, b in enumerate(labels)
        if not matrix[i, j].isnan()
    }


def same_outcome(one: Accordance, other: Accordance) -> None:
    """Whatever the order in which they came to know the classes."""
    a, b = one.compute(), other.compute()
    wanted = {**b, "matrix": by_pairs(b)} if "matrix" in b else b
    agree(a, wanted)
    assert ("matrix" in a) == ("matrix" in b)
    assert a["standard_error"] == pytest.approx(b["standard_error"], abs=1e-10, nan_ok=True)


# ---- all pairs -----------------------------------------------------------------------------------


@NORMALIZE
@MATRIX
@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("seed", range(3))
def test_means_are_those_over_all_pairs(normalize: Normalize, matrix: bool, form: str, seed: int):
    batches = pairs.random(seed=seed)
    wanted = pairs.means(batches, normalize)
    assert min(wanted["pairs"].values()) > 20 and any(len(batch) < 4 for batch in batches)
    accordance = Accordance(normalize, matrix=matrix)
    for batch in batches:
        accordance.update(FORMS[form](batch))
    agree(accordance.compute(), wanted)


@NORMALIZE
@MATRIX
@pytest.mark.parametrize("count, classes", [(37, 4), (5, 1), (12, 7)])
def test_whatever_the_number_of_classes(
    normalize: Normalize, matrix: bool, count: int, classes: int
):
    batches = pairs.random(count, classes, [(11,)], absent=0.5, seed=count)
    assert any(not batch for batch in batches) or count != 37
    agree(stream(batches, normalize, matrix=matrix).compute(), pairs.means(batches, normalize))


@MATRIX
def test_where_there_is_no_pair_there_is_no_mean(matrix: bool):
    batches = pairs.random(3, 2, absent=0.0)
    for few in ([], [{}], batches[:1], [{0: batches[0][0]}, {1: batches[1][1]}], [batches[0], {}]):
        agree(stream(few, matrix=matrix).compute(), pairs.means(few, "cosine"))
    nothing = stream([], matrix=matrix).compute()
    assert all(math.isnan(nothing[name]) for name in (*pairs.KINDS, "within"))
    (lone,) = stream([{0: batches[0][0]}]).compute()["matrix"].tolist()
    assert math.isnan(lone[0])


def test_classes_may_have_names():
    g = pairs.random(4, 2, absent=0.0)
    named = [{("cat", "dog")[c]: parts for c, parts in batch.items()} for batch in g]
    accordance = Accordance()
    for batch in named:
        accordance.update(batch)
    found, wanted = accordance.compute(), pairs.means(g, "cosine")
    cat, dog = (found["classes"].index(name) for name in ("cat", "dog"))
    assert float(found["matrix"][cat, dog]) == pytest.approx(wanted["matrix"][0, 1], abs=1e-10)
    assert found["all"] == pytest.approx(wanted["all"], abs=1e-10)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="exact=False"):
        Accordance(exact=False)
    cosines: Any = "cosines"  # beartype refuses it before the class can
    with pytest.raises(Exception, match="cosines"):
        Accordance(cosines)


# ---- merging -------------------------------------------------------------------------------------


@NORMALIZE
@MATRIX
def test_any_parts_in_any_order_make_the_whole(normalize: Normalize, matrix: bool):
    batches = [{0: pairs.random(1, 1, absent=0.0)[0][0]}, *pairs.random(7)]
    options = {"matrix": matrix, "sketch": CountSketch(32)}
    whole = stream(batches, normalize, **options)
    cuts = ([0, 1, 4, 8], [0, 3, 3, 8], [0, 0, 8, 8], [0, 2, 6, 8])
    for start, *ends in cuts:
        bounds = zip([start, *ends], ends, strict=False)
        parts = [stream(batches[a:b], normalize, **options) for a, b in bounds]
        for order in permutations(parts):
            merged = Accordance(normalize, **options)
            for part in order:
                merged.merge(part)
            same_outcome(merged, whole)
    agree(whole.compute(), pairs.means(batches, normalize))


@MATRIX
def test_merging_is_associative_and_goes_on(matrix: bool):
    a, b, c, d = (pairs.random(2, seed=seed) for seed in range(4))
    right = stream(b, matrix=matrix)
    right.merge(stream(c, matrix=matrix))
    left = stream(a, matrix=matrix)
    left.merge(right)
    for batch in d:
        left.update(batch)
    agree(left.compute(), pairs.means([*a, *b, *c, *d], "cosine"))


@MATRIX
def test_classes_that_one_part_alone_knows_are_merged(matrix: bool):
    one = [{c: batch[c] for c in (0, 1)} for batch in pairs.random(4, absent=0.0)]
    other = [{c: batch[c] for c in (3, 1, 2)} for batch in pairs.random(4, absent=0.0, seed=1)]
    merged = stream(one, matrix=matrix)
    merged.merge(stream(other, matrix=matrix))
    agree(merged.compute(), pairs.means([*one, *other], "cosine"))


@MATRIX
def test_what_is_merged_in_stays_as_it_was_and_apart(matrix: bool):
    options = {"matrix": matrix, "sketch": CountSketch(32)}
    given = stream(pairs.random(4), **options)
    before = copy.deepcopy(given.compute())
    into = Accordance(**options)
    into.merge(given)
    for batch in pairs.random(3, seed=1):
        into.update(batch)
    torch.testing.assert_close(given.compute(), before, rtol=0, atol=0, equal_nan=True)
    after = copy.deepcopy(into.compute())
    for batch in pairs.random(3, seed=2):
        given.update(batch)
    torch.testing.assert_close(into.compute(), after, rtol=0, atol=0, equal_nan=True)


@MATRIX
def test_a_saved_state_goes_on_where_it_was(matrix: bool):
    options = {"matrix": matrix, "sketch": CountSketch(32)}
    batches, file = pairs.random(), io.BytesIO()
    torch.save(stream(batches[:5], **options).state_dict(), file)
    file.seek(0)
    resumed = Accordance(**options)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for batch in batches[5:]:
        resumed.update(batch)
    same_outcome(resumed, stream(batches, **options))


# ---- laws ----------------------------------------------------------------------------------------


@NORMALIZE
@MATRIX
def test_neither_the_order_of_batches_nor_that_of_classes_matters(
    normalize: Normalize, matrix: bool
):
    batches = pairs.random()
    shuffled = [dict(reversed(batches[s].items())) for s in (4, 8, 0, 7, 3, 1, 6, 2, 5)]
    options = {"matrix": matrix, "sketch": CountSketch(32)}
    same_outcome(stream(shuffled, normalize, **options), stream(batches, normalize, **options))


@MATRIX
def test_cosines_do_not_depend_on_the_lengths_of_gradients(matrix: bool):
    batches, factors = pairs.random(), iter([10.0 ** (k % 17 - 8) for k in range(0, 500, 5)])
    scaled = []
    for batch in batches:
        by = {c: next(factors) for c in batch}
        scaled.append({c: [by[c] * part for part in parts] for c, parts in batch.items()})
    options = {"matrix": matrix, "sketch": CountSketch(32)}
    same_outcome(stream(scaled, **options), stream(batches, **options))
    inner = stream(scaled, "none").compute()["all"]
    assert abs(inner / stream(batches, "none").compute()["all"]) > 10


def test_inner_products_grow_by_the_square_of_the_loss_scale():
    batches = pairs.random()
    scaled = [{c: [8 * part for part in parts] for c, parts in b.items()} for b in batches]
    one, eight = stream(batches, "none").compute(), stream(scaled, "none").compute()
    for name in (*pairs.KINDS, "within"):
        assert eight[name] == pytest.approx(64 * one[name], rel=1e-12)


@MATRIX
def test_of_one_batch_again_and_again_the_same_class_agrees_wholly(matrix: bool):
    batch = pairs.random(1, 3, absent=0.0)[0]
    found = stream([batch] * 5, matrix=matrix).compute()
    assert found["same"] == pytest.approx(1, abs=1e-12)
    assert found["cross"] == pytest.approx(found["within"], abs=1e-12)
    assert abs(found["cross"]) < 0.99
    if matrix:
        torch.testing.assert_close(found["matrix"].diagonal(), torch.ones(3, dtype=torch.float64))


@NORMALIZE
@MATRIX
def test_orthogonal_gradients_have_none(normalize: Normalize, matrix: bool):
    directions = torch.linalg.qr(pairs.flat(pairs.random(1, 1, [(12, 12)])[0][0]).view(12, 12))[0]
    scaled = iter(directions * torch.arange(1, 13).unsqueeze(1))
    batches = [{c: [next(scaled)] for c in range(3)} for _ in range(4)]
    found = stream(batches, normalize, matrix=matrix).compute()
    for name in (*pairs.KINDS, "within"):
        assert found[name] == pytest.approx(0, abs=1e-12)


# ---- gradients that are none ---------------------------------------------------------------------


@NORMALIZE
@MATRIX
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_counts_as_absent(
    normalize: Normalize, matrix: bool, bad: float
):
    batches = pairs.random(6, 3, absent=0.0)
    broken, rest = copy.deepcopy(batches), copy.deepcopy(batches)
    for s, c in ((0, 1), (3, 0), (5, 2)):
        broken[s][c][2][1] = bad
        del rest[s][c]
    options = {"matrix": matrix, "sketch": CountSketch(32)}
    found = stream(broken, normalize, **options)
    same_outcome(found, stream(rest, normalize, **options))
    agree(found.compute(), pairs.means(rest, normalize))


@MATRIX
def test_a_zero_gradient_has_no_direction_but_an_inner_product(matrix: bool):
    batches = pairs.random(5, 3, absent=0.0)
    rest = [dict(batch) for batch in batches]
    for s, c in ((0, 1), (4, 2)):
        batches[s][c] = [torch.zeros_like(part) for part in batches[s][c]]
        del rest[s][c]
    agree(stream(batches, "cosine", matrix=matrix).compute(), pairs.means(rest, "cosine"))
    agree(stream(batches, "none", matrix=matrix).compute(), pairs.means(batches, "none"))


def test_a_class_that_never_had_a_gradient_is_unknown():
    batches = [
        {**b, 9: [torch.zeros_like(part) for part in b[0]]} for b in pairs.random(3, absent=0)
    ]
    found = stream(batches).compute()
    assert 9 not in found["classes"] and len(found["matrix"]) == 4


@MATRIX
@pytest.mark.parametrize("first", [1.0, 0.0, math.nan])
def test_a_class_that_comes_twice_in_one_batch_is_refused(matrix: bool, first: float):
    once = [torch.full((3,), first, dtype=torch.float64)]
    other, again = ([torch.rand(3).double()] for _ in range(2))
    with pytest.raises(ValueError, match="class 7 comes twice"):
        Accordance(matrix=matrix).update([(7, once), (8, other), (7, again)])


# ---- what belongs to the caller ------------------------------------------------------------------


@NORMALIZE
@MATRIX
def test_the_callers_tensors_stay_as_they_were_and_may_change_afterwards(
    normalize: Normalize, matrix: bool
):
    batches = pairs.random(absent=0.0)
    wanted, before = pairs.means(batches, normalize), copy.deepcopy(batches)
    versions = [part._version for b in batches for parts in b.values() for part in parts]
    accordance = Accordance(normalize, matrix=matrix, sketch=CountSketch(32))
    for batch in batches:
        accordance.update(batch)
    accordance.compute()
    after = [part._version for b in batches for parts in b.values() for part in parts]
    assert versions == after and [list(batch) for batch in batches] == [list(b) for b in before]
    torch.testing.assert_close(batches, before, rtol=0, atol=0)
    for batch in batches:
        for parts in batch.values():
            for part in parts:
                part.fill_(math.nan)
    agree(accordance.compute(), wanted)


@MATRIX
def test_a_graph_behind_the_gradients_is_not_kept(matrix: bool):
    weight = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    accordance = Accordance(matrix=matrix, sketch=CountSketch(8))
    for power in (2, 3, 4):
        losses = ((weight**power).sum(), (weight.exp() * power).prod())
        grads = [torch.autograd.grad(loss, weight, create_graph=True)[0] for loss in losses]
        accordance.update(dict(enumerate(grads)))
    assert not any(tensor.requires_grad for tensor in reachable(accordance))


# ---- precision -----------------------------------------------------------------------------------


@NORMALIZE
@MATRIX
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_is_added_up_in_float32(
    normalize: Normalize, matrix: bool, dtype: torch.dtype
):
    exact = pairs.random(30, 8, [(20, 20), (7,)])
    given = [{c: [part.to(dtype) for part in parts] for c, parts in b.items()} for b in exact]
    accordance = stream(given, normalize, matrix=matrix, sketch=CountSketch(512))
    kept = reachable([accordance.sums, accordance.history])
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    # Of the very numbers that were given, in float64.
    wide = [{c: [part.double() for part in parts] for c, parts in b.items()} for b in given]
    wanted = stream(wide, normalize, matrix=matrix, sketch=CountSketch(512)).compute()
    size = 1.0 if normalize == "cosine" else 400.0
    found = accordance.compute()
    for name in (*pairs.KINDS, "within"):
        assert found[name] == pytest.approx(wanted[name], rel=0, abs=3e-6 * size), name
    assert found["pairs"] == wanted["pairs"]
    assert found["standard_error"] == pytest.approx(wanted["standard_error"], rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_thousands_of_small_steps_are_not_lost(dtype: torch.dtype):
    step = torch.full((4,), 2.0**-10, dtype=dtype)
    accordance = Accordance("none", matrix=False)
    for _ in range(2000):
        accordance.update({0: step})
    assert accordance.compute()["all"] == pytest.approx(4 * 2.0**-20, rel=1e-6)


@MATRIX
def test_long_vectors_are_measured_as_exactly_as_short_ones(matrix: bool):
    # One float32 sum of millions of squares loses what lies below its own rounding.
    gradient = torch.randn(2**22, generator=torch.Generator().manual_seed(0))
    accordance = Accordance("none", matrix=matrix)
    for _ in range(2):
        accordance.update({0: gradient})
    found, exact = accordance.compute(), float(gradient.double().square().sum())
    assert found["same"] == pytest.approx(exact, rel=2e-6)
    assert found["all"] == pytest.approx(exact, rel=4e-6)


def test_the_parts_of_each_gradient_may_lie_in_several_processes():
    # Two processes with equal halves: what one finds is half of the sum.
    halves = pairs.random()
    whole = [{c: [*parts, *parts] for c, parts in batch.items()} for batch in halves]
    for matrix in (True, False):
        for normalize in ("cosine", "none"):
            found = stream(halves, normalize, matrix=matrix, total=lambda number: 2 * number)
            agree(found.compute(), pairs.means(whole, normalize))


# ---- memory --------------------------------------------------------------------------------------


def reachable(root: object) -> list[Tensor]:
    """All tensors that it holds, directly or not."""
    seen: dict[int, object] = {}
    left = [root]
    while left:
        this = left.pop()
        if id(this) in seen or isinstance(this, FunctionType | ModuleType | type):
            continue
        seen[id(this)] = this
        left.extend([] if isinstance(this, Tensor) else gc.get_referents(this))
    return [this for this in seen.values() if isinstance(this, Tensor)]


def numbers(root: object) -> int:
    """In all of these."""
    return sum(tensor.untyped_storage().nbytes() // 8 for tensor in reachable(root))


@MATRIX
def test_it_holds_one_vector_per_class_however_many_batches(matrix: bool):
    accordance = Accordance(matrix=matrix)
    for seed in range(5):
        for batch in pairs.random(10, 3, [(40, 5), (10,)], absent=0.0, seed=seed):
            accordance.update(batch)
        assert numbers(accordance) == 3 * 210
        accordance.compute()
        assert len(reachable(accordance)) == 3 * 2


@MATRIX
def test_with_a_sketch_it_holds_a_row_more_per_gradient(matrix: bool):
    accordance = Accordance(matrix=matrix, sketch=CountSketch(16), exact=False)
    accordance.update(pairs.random(1, 3, [(40, 5), (10,)], absent=0.0)[0])
    first = numbers(accordance)
    for batch in pairs.random(20, 3, [(40, 5), (10,)], absent=0.0):
        accordance.update(batch)
    assert numbers(accordance) == first + 20 * 3 * 16
    assert not accordance.sums


class Alive:
    """Makes gradients one at a time, and counts those that somebody still holds."""

    def __init__(self, classes: int) -> None:
        self.classes, self.most = classes, 0
        self.made: list[weakref.ref[Tensor]] = []

    @property
    def count(self) -> int:
        """Gradients, not tensors."""
        return sum(gradient() is not None for gradient in self.made)

    def batch(self) -> Iterator[tuple[int, Tensor]]:
        """Its gradients."""
        for label in range(self.classes):
            yield label, self._make()

    def _make(self) -> Tensor:
        gradient = torch.randn(50, dtype=torch.float64)
        self.made.append(weakref.ref(gradient))
        self.most = max(self.most, self.count)
        return gradient


@MATRIX
@pytest.mark.parametrize("sketch", [None, 16])
def test_no_gradient_outlives_its_batch(matrix: bool, sketch: int | None):
    alive = Alive(classes=4)
    accordance = Accordance(matrix=matrix, sketch=None if sketch is None else CountSketch(sketch))
    gc.disable()  # nothing is to wait for the collector
    try:
        for _ in range(3):
            accordance.update(alive.batch())
            assert alive.count == 0
    finally:
        gc.enable()
    assert len(alive.made) == 12 and accordance.compute()["pairs"]["all"] == 12 * 8


def test_without_a_matrix_two_gradients_of_a_batch_are_alive_at_a_time():
    alive = Alive(classes=6)
    accordance = Accordance(matrix=False)
    for _ in range(3):
        accordance.update(alive.batch())
    assert len(alive.made) == 18
    assert alive.most == 2


# ---- sketches ------------------------------------------------------------------------------------


@NORMALIZE
@MATRIX
@pytest.mark.parametrize("exact", [True, False])
def test_standard_errors_are_those_of_leaving_out_each_batch_once(
    normalize: Normalize, matrix: bool, exact: bool
):
    batches = pairs.random(7, shapes=[(13,)])
    found = stream(batches, normalize, matrix=matrix, exact=exact, sketch=CountSketch(13)).compute()
    assert found["standard_error"] == pytest.approx(
        pairs.jackknife(batches, normalize), rel=0, abs=1e-10
    )
    assert min(found["standard_error"].values()) > 0.01


def test_fewer_than_three_batches_have_no_standard_error():
    batches = pairs.random(3, absent=0.0)
    for count in range(4):
        found = stream(batches[:count], sketch=CountSketch(32)).compute()["standard_error"]
        assert [math.isnan(error) for error in found.values()] == [count < 3] * 3
    assert stream(batches).compute()["standard_error"] == {}


@NORMALIZE
def test_rows_stand_in_for_sums(normalize: Normalize):
    batches = pairs.random(shapes=[(13,)])
    found = stream(batches, normalize, exact=False, sketch=CountSketch(13)).compute()
    agree(found, pairs.means(batches, normalize))
    rough = stream(batches, normalize, exact=False, sketch=CountSketch(4))
    rows = [{c: [row] for c, row in batch.items()} for batch in rough.history.batches]
    agree(rough.compute(), pairs.means(rows))  # divided by the lengths of the gradients already
    assert abs(rough.compute()["all"] - found["all"]) > 1e-3


def test_short_rows_are_close_to_the_sums():
    batches = pairs.random(20, 2, [(500,), (101,)], absent=0.0, common=0.0)
    exact, size, deviations = stream(batches).compute(), 64, []
    for seed in range(30):
        found = stream(batches, exact=False, sketch=CountSketch(size, seed)).compute()
        deviations.append(found["all"] - exact["all"])
    # Of n = 40 nearly orthogonal ones.
    deviation = math.sqrt(2 / size) / 40
    assert max(map(abs, deviations)) < 4 * deviation
    assert pairs.mean(deviations) == pytest.approx(0, abs=4 * deviation / math.sqrt(30))
    assert pairs.mean([d**2 for d in deviations]) > (deviation / 3) ** 2
