"""A small BERT from scratch, with a tokenizer trained on the training texts."""

from typing import Any

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import (
    BertConfig,
    BertForMultipleChoice,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
    BertModel,
    PreTrainedTokenizerFast,
)

from lit_adv import regions
from lit_adv.data.splits import Splits
from lit_adv.kinds.labels import kind_of
from lit_adv.models.initial import Init, initialise
from lit_adv.models.model import Model, of_texts
from lit_adv.tasks.classification import HeadInit

ARCHITECTURES: dict[str, Any] = {
    "": BertModel,
    "CausalLM": BertLMHeadModel,
    "MultipleChoice": BertForMultipleChoice,
    "SequenceClassification": BertForSequenceClassification,
    "TokenClassification": BertForTokenClassification,
}
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]


def build(
    splits: Splits,
    *,
    width: int = 96,
    layers: int = 2,
    heads: int = 4,
    dropout: float = 0.0,
    vocabulary: int = 4000,
    max_tokens: int = 512,
    embedding_norm: float = 1.4,
    init: Init = "own",
    compile: bool = False,
    gradient_checkpointing: bool = False,
    at: str | None = None,
    special_tokens: str = "perturb",
    head_init: HeadInit = "random",
    drop_token: float = 0.0,
) -> Model:
    """A transformer encoder with random weights.

    Args:
        splits: whose training texts the tokenizer is trained on, and whose classes the head has.
        width: of the embeddings and layers.
        layers: number of layers.
        heads: attention heads per layer.
        dropout: probability, everywhere.
        vocabulary: largest number of byte pairs.
        max_tokens: longest input.
        embedding_norm: expected length of a word vector (and a position's); 1.4 is that of BERT's
            words, so that radii and step sizes mean the same here and there.
        init: rule of the linear layers' weights; see `initial`.
        compile: the layers, by torch.compile.
        gradient_checkpointing: recompute the layers' activations instead of keeping them.
        at: name of the module whose output is perturbed; None = the word embeddings.
        special_tokens: `perturb` or `keep` clean.
        head_init: of the last layer, `random` or `closed_form`; see Classification.
        drop_token: chance of each word to be left out of a training batch, in [0, 1).

    Raises:
        ValueError: the data are images.
    """
    splits = of_texts(splits, "tiny")
    kind = kind_of(splits)
    tokenizer = train_tokenizer(splits, vocabulary, max_tokens)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=max_tokens,
        initializer_range=0.04,  # BERT's 0.02 is meant for eight times the width
        pad_token_id=SPECIAL.index("[PAD]"),
        is_decoder=kind.architecture == "CausalLM",
        **kind.sizes(splits),
    )
    network = ARCHITECTURES[kind.architecture](config)
    initialise(network, init)
    embeddings: Any = network.base_model.embeddings
    # Words and positions weigh the same, or the order of the words is learned late or never.
    for table in (
        embeddings.word_embeddings,
        embeddings.position_embeddings,
    ):
        table.weight.data.mul_(embedding_norm / (config.initializer_range * width**0.5))
    regions.prepare(network, compile=compile, gradient_checkpointing=gradient_checkpointing)
    return Model(
        network=network,
        tokenizer=tokenizer,
        at=at,
        special_tokens=special_tokens,
        head_init=head_init,
        drop_token=drop_token,
        adapters=kind.adapters,
        new_head=kind.new_head,
    )


def train_tokenizer(splits: Splits, vocabulary: int, max_tokens: int) -> PreTrainedTokenizerFast:
    """A lower-casing byte-pair tokenizer from the training texts; the same for the same texts.

    Byte pairs and not word pieces: the trainer of those numbers its pieces differently in every
    process.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(kind_of(splits).corpus(splits.train), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, SPECIAL.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_tokens,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
