"""Settings of stage 2, checked as soon as they are made; nothing here imports a library that takes long to load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter, Token

from ..shared.data.columns import Columns
from ..shared.errors import SettingsError, flag_of, refuse_below, refuse_idle, refuse_url
from ..shared.types import PRIMARY_METRIC, JudgeName, MarginStrategy

LossName = Literal["guided", "unguided"]
Repeatable = Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)]
Switch = Annotated[bool, Parameter(negative="")]

# Where things are, what is logged, and how much is computed at a time. Index and student are compared by content.
FREE_ON_RESUME = frozenset(
    {"index", "rescored", "student", "out", "device", "eval_pairs", "columns", "save_steps", "save_minutes"}
    | {"logging_steps", "report_to", "token_cache", "mini_batch_num_tokens", "push_to_hub", "hub_private"}
)


def dimensions(type_: object, tokens: Sequence[Token]) -> tuple[int, ...]:
    """Numbers separated by commas on the command line, or a list in a TOML file, which may be empty."""
    return tuple(int(number) for token in tokens for number in token.value.split(",") if number)


def _refuse_unknown(settings: object, **choices: Any) -> None:  # noqa: ANN401 (literal types)
    """Raise SettingsError where a setting has none of the values that its literal type lists."""
    for name, choice in choices.items():
        if (value := getattr(settings, name)) not in get_args(choice):
            known = " or ".join(get_args(choice))
            raise SettingsError(
                f"There is no {name.replace('_', ' ')} {value!r}", where=flag_of(name), fix=f"give {known}"
            )


@Parameter(name="*", group="Hard negatives")
@dataclass(frozen=True, kw_only=True)
class HardNegativeSettings:
    """Which neighbours become hard negatives."""

    hard_negatives: int = 0
    """Hard negatives a pair, drawn anew each epoch from the anchor's stored neighbours that the judge lets pass; pairs
    with fewer are listed in few_negatives.parquet."""
    skip_top: int = 0
    """Leave out this many of the closest neighbours, whatever the judge says."""
    draw: Literal["random", "top", "weighted"] = "random"
    """`random`: all that pass are equally likely; `top`: the closest; `weighted`: closer ones are more likely."""
    negative_margin: float | None = None
    """Let only neighbours pass that score by this margin below the positive; default: as the judge says."""
    negative_margin_strategy: MarginStrategy = "relative"
    """`relative`: a neighbour passes up to score - abs(score) * margin, with the positive's score; `absolute`: up to
    score - margin. NV-Retriever's TopK-PercPos is relative 0.05."""

    def __post_init__(self) -> None:
        """Check every value."""
        refuse_below(self, 0, "hard_negatives", "skip_top", "negative_margin")
        if not self.hard_negatives:
            refuse_idle(self, ("skip_top", "draw", "negative_margin"), "--hard-negatives")
        if self.negative_margin is None:
            refuse_idle(self, ("negative_margin_strategy",), "--negative-margin")


@Parameter(name="*", group="Learning from the guide's scores")
@dataclass(frozen=True, kw_only=True)
class DistillationSettings:
    """Weights of the terms beside the contrastive loss; 0 leaves a term out."""

    kl_weight: float = 0.0
    """Weight of the KL divergence between guide and student over an anchor's documents of the batch."""
    kl_guide_temperature: float = 0.05
    """The guide's similarities are divided by it in that term."""
    kl_student_temperature: float = 0.05
    """The student's similarities are divided by it in that term."""
    margin_mse_weight: float = 0.0
    """Weight of MarginMSE: the student learns the guide's margin between positive and each explicit negative."""
    regression_weight: float = 0.0
    """Weight of the regression onto the guide's vectors, through a linear map that is dropped after training."""

    def __post_init__(self) -> None:
        """Check every value."""
        temperatures = ("kl_guide_temperature", "kl_student_temperature")
        refuse_below(self, 0, "kl_weight", "margin_mse_weight", "regression_weight")
        refuse_below(self, 0, *temperatures, strictly=True)
        if not self.kl_weight:
            refuse_idle(self, temperatures, "--kl-weight")


@Parameter(name="*", group="Loss and judge")
@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """Which rule calls a candidate a false negative."""

    judge: JudgeName = "positive"
    """Which candidates are false negatives. `positive`: those closer to the anchor than its own positive, as in the
    paper; `neighborhood`: those of pairs as related as an anchor and its positive, relative to local density."""
    judge_threshold: float | None = None
    """Relatedness above which --judge neighborhood masks; default: chosen from the index."""
    judge_quantile: float = 0.5
    """Choose that threshold at this quantile of how related anchors are to their own positives; less masks more."""
    margin: float = 0.0
    """How far below the judge's threshold a candidate is masked already; greater masks more."""
    margin_strategy: MarginStrategy = "absolute"
    """`absolute`: score - margin; `relative`: score - abs(score) * margin."""

    def __post_init__(self) -> None:
        """Check every value."""
        _refuse_unknown(self, judge=JudgeName, margin_strategy=MarginStrategy)
        refuse_below(self, 0, "margin", "judge_quantile")
        if not self.margin:
            refuse_idle(self, ("margin_strategy",), "--margin")
        if self.judge_quantile > 1:
            raise SettingsError(f"{self.judge_quantile} is no quantile", where="--judge-quantile", fix="give 0 to 1")
        if self.judge == "neighborhood":
            self._refuse_for_neighborhood()
        else:
            refuse_idle(self, ("judge_threshold", "judge_quantile"), "--judge neighborhood")

    def _refuse_for_neighborhood(self) -> None:
        if self.margin_strategy == "relative":
            raise SettingsError(
                "A relative margin needs a positive's score",
                where="--margin-strategy relative --judge neighborhood",
                fix="give an absolute margin",
            )
        if self.judge_threshold is not None and self.judge_quantile != JudgeSettings.judge_quantile:
            raise SettingsError(
                "A threshold that is given needs no quantile",
                where="--judge-threshold --judge-quantile",
                fix="leave one of both out",
            )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LossSettings(JudgeSettings):
    """What the student learns from a batch: the settings of ``GuidedContrastiveLoss``."""

    loss: LossName = "guided"
    """`unguided` trains without the guide's judgement, for comparison."""
    temperature: float = 0.05
    """Similarities are divided by it. The paper's is 0.01; docs/CHOOSING.md says why it is higher here."""
    contrast_anchors: bool = True
    """Push anchors apart from anchors."""
    contrast_positives: bool = True
    """Push positives apart from positives."""
    negatives: int | None = None
    """Negatives of each pair to use; default: the most that any pair has."""
    mining: HardNegativeSettings = field(default_factory=HardNegativeSettings)
    """Hard negatives from the stored neighbours."""
    terms: DistillationSettings = field(default_factory=DistillationSettings)
    """Terms that learn from the guide's scores themselves."""

    def __post_init__(self) -> None:
        """Check every value."""
        super().__post_init__()
        _refuse_unknown(self, loss=LossName)
        refuse_below(self, 0, "temperature", strictly=True)
        refuse_below(self, 0, "negatives")
        if self.loss == "unguided":
            refuse_idle(self, [each.name for each in fields(JudgeSettings)], "--loss guided")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """All settings of one training run: the flags of `gistcache train`."""

    index: str | Path = "guide-index"
    """The guide index, made by `gistcache index`: a folder, or a URL, which is copied into the cache once."""
    rescored: Path | None = None
    """A reranker's scores of the index, made by `gistcache rescore`: where the reranker has read an anchor and a
    document, its score says whether the document is a false negative; hard negatives are chosen by it too."""
    student: str
    """The student: a folder, a hub id, or `package:DISTRIBUTION`."""
    out: Path = Path("runs/student")
    """Folder for the trained model, its checkpoints and metrics.json."""
    layers: int | None = None
    """Keep this many evenly spaced transformer layers of the student; default: all."""
    static: Switch = False
    """Average token embeddings in place of running a transformer: the student's own table of them, or, where --student
    is a static model or a folder with tokenizer.json and a table in model.safetensors, that one."""
    lora_rank: int | None = None
    """Train low-rank adapters of this rank only (LoRA, by PEFT); they are merged into the model that is saved."""
    matryoshka: Annotated[tuple[int, ...], Parameter(negative="", n_tokens=1, converter=dimensions)] = ()
    """Train the leading dimensions to be embeddings too, such as 128,64; all dimensions always are."""
    max_length: int | None = None
    """Tokens after which the student cuts a text; default: the student's own limit."""
    query_prompt: str | None = None
    """Put before every anchor; default: the student's own prompt named `query`."""
    document_prompt: str | None = None
    """Put before every positive and negative; default: the student's own named `document`, `passage` or `corpus`."""
    objective: LossSettings = field(default_factory=LossSettings)
    """What is learnt from a batch."""
    epochs: float = 1.0
    """Passes over the pairs."""
    max_steps: int | None = None
    """Stop after this many steps, whatever the epochs."""
    batch_size: int = 64
    """Pairs a batch, of all processes together; each is judged against all others of its batch."""
    hardness: int = 0
    """Pairs that each pair brings into its batch from its anchor's stored neighbours; 0 for random batches."""
    keep_positive_rank: int | None = None
    """Train only on pairs whose positive is among this many documents closest to its anchor by the guide (consistency
    filtering); the others are listed in dropped.parquet."""
    mini_batch_num_tokens: int | None = None
    """Embed this many tokens at a time, twice, so that memory does not grow with the batch (gradient caching); for
    batches that do not fit. Default: embed the batch once, as a static student always does."""
    token_cache: bool = True
    """Tokenize each text once and keep the tokens beside the index, for all students with this tokenizer."""
    gradient_accumulation: int = 1
    """Batches a step of the optimizer."""
    learning_rate: float = 1e-4
    """Peak learning rate of AdamW; measured with a student of 23M weights, larger ones may want less."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises; after it, it falls to 0 linearly."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number type of the forward pass; bf16 and fp16 are faster on an accelerator only."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; CUDA_VISIBLE_DEVICES says on which GPU."""
    eval_pairs: Repeatable = ()
    """Held-out pairs to evaluate on, before and after training; may be repeated."""
    columns: Columns = field(default_factory=Columns)
    """Which columns of the held-out pairs hold the texts."""
    eval_steps: int | None = None
    """Evaluate every this many steps too, and keep the best checkpoint."""
    save_steps: int | None = None
    """Write a checkpoint every this many steps; default: --eval-steps, where that is given."""
    save_minutes: float = 10.0
    """Write a checkpoint when this many minutes have passed since the last one."""
    resume: bool = False
    """Continue from the newest intact checkpoint in --out; without one, start at the beginning."""
    verify: bool | None = None
    """Read every file of the index and compare its checksum; by default each large one once on this machine."""
    seed: int = 0
    """Seed of the batch plan and of dropout."""
    logging_steps: int = 10
    """Log the loss and the share of masked candidates every this many steps."""
    report_to: Repeatable = ()
    """Loggers of the Hugging Face Trainer, such as tensorboard, wandb, trackio; may be repeated."""
    push_to_hub: str | None = None
    """Upload the trained model and its card to this hub repository, ORGANISATION/NAME; it is made if it does not exist.
    The token is that of `hf auth login` or HF_TOKEN."""
    hub_private: Switch = False
    """Make the new repository private."""

    def __post_init__(self) -> None:
        """Check every value; from Python, a path may be a string, and so may the only file of held-out pairs."""
        paths = {name: Path(path) for name in ("out", "rescored") if (path := getattr(self, name)) is not None}
        pairs = {"eval_pairs": (self.eval_pairs,)} if isinstance(self.eval_pairs, str) else {}
        self.__dict__.update(paths | pairs)
        refuse_below(self, 1, "layers", "lora_rank", "max_length", "max_steps", "mini_batch_num_tokens")
        refuse_below(
            self, 1, "gradient_accumulation", "keep_positive_rank", "eval_steps", "save_steps", "logging_steps"
        )
        refuse_below(self, 2, "batch_size")  # a batch of one pair has no negatives
        refuse_below(self, 0, "seed", "hardness", "weight_decay", "warmup")
        refuse_below(self, 0, "save_minutes", "epochs", "learning_rate", strictly=True)
        if self.warmup >= 1:
            raise SettingsError(f"{self.warmup} is no share", where="--warmup", fix="give 0 or more, and less than 1")
        if self.rescored and self.objective.loss == "unguided":
            raise SettingsError(
                "Unguided training uses no reranker's scores", where="--rescored", fix="leave one of the two out"
            )
        refuse_url(self.out, "--out")
        self._check_student()
        self._check_evaluation()
        self._check_hub()

    def _check_student(self) -> None:
        if self.static and (self.layers or self.lora_rank):
            raise SettingsError(
                "A static student has no layers",
                where="--static " + (f"--layers {self.layers}" if self.layers else f"--lora-rank {self.lora_rank}"),
                fix="leave out one of the two",
            )
        if any(dim < 1 for dim in self.matryoshka) or len(set(self.matryoshka)) < len(self.matryoshka):
            raise SettingsError(
                "Dimensions are 1 or more, each given once",
                where=f"--matryoshka {','.join(map(str, self.matryoshka))}",
                fix="give numbers of leading dimensions, such as 256,128,64",
            )

    def _check_evaluation(self) -> None:
        if self.eval_steps and not self.eval_pairs:
            raise SettingsError("There is nothing to evaluate on", where="--eval-steps", fix="give --eval-pairs too")
        if self.eval_steps and self.save_steps and self.save_steps % self.eval_steps:
            raise SettingsError(
                "The best checkpoint can be kept only if checkpoints are written where the model is evaluated",
                where=f"--save-steps {self.save_steps} --eval-steps {self.eval_steps}",
                fix="give a --save-steps that is a multiple of --eval-steps, or leave it out",
            )

    def _check_hub(self) -> None:
        if self.push_to_hub:
            from huggingface_hub.errors import HFValidationError
            from huggingface_hub.utils import validate_repo_id

            try:
                validate_repo_id(self.push_to_hub)
            except HFValidationError as error:
                where = f"--push-to-hub {self.push_to_hub}"
                raise SettingsError(str(error), where=where, fix="give ORGANISATION/NAME") from error
        elif self.hub_private:
            raise SettingsError("Nothing is uploaded", where="--hub-private", fix="give --push-to-hub REPOSITORY too")

    def recorded(self) -> dict[str, Any]:
        """All settings, JSON-ready, for metrics and model card."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self).items()
            if name not in ("resume", "verify")
        }

    def determining(self) -> dict[str, Any]:
        """The settings that determine the weights; a resumed run may change the others."""
        return {name: value for name, value in self.recorded().items() if name not in FREE_ON_RESUME}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MineSettings:
    """The settings of `gistcache mine`; hard negatives are chosen and drawn as in `gistcache train`."""

    out: Path
    """File to write, `.parquet` or `.jsonl`; an existing one is replaced."""
    format: Literal["n-tuple", "flagembedding"] = "n-tuple"
    """`n-tuple`, for sentence-transformers: anchor, positive, negative_1 ... negative_N, one row a pair; pairs with
    fewer than N are left out and counted. `flagembedding`: query, pos, neg, pos_scores, neg_scores, one row an anchor
    with the negatives of all its pairs, which may be fewer than N; anchors without any are left out and counted."""
    mining: HardNegativeSettings = field(default_factory=HardNegativeSettings)
    """Which neighbours become negatives."""
    judging: JudgeSettings = field(default_factory=JudgeSettings)
    """Which of them are false negatives, as for the loss of `gistcache train`; --negative-margin and --rescored replace
    it."""
    rescored: Path | None = None
    """Scores of a reranker, made by `gistcache rescore`: they order the neighbours, decide in the judge's place which
    are false negatives, and are the scores that are written."""
    seed: int = 0
    """Seed of the drawing; give the training run's."""
    epoch: int = 0
    """Which epoch's negatives to draw, counted from 0."""

    def __post_init__(self) -> None:
        """Check every value."""
        if self.mining.hard_negatives < 1:
            raise SettingsError(
                "The number of hard negatives is missing", where="--hard-negatives", fix="give 1 or more"
            )
        if self.out.suffix not in (".parquet", ".jsonl"):
            raise SettingsError("The suffix names no format", where=f"--out {self.out}", fix="give .parquet or .jsonl")
        refuse_url(self.out, "--out")
        refuse_below(self, 0, "seed", "epoch")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """The table [sweep] of a sweep file: what all runs share."""

    index: str = "guide-index"
    """The guide index, as for `gistcache train`."""
    out: Path = Path("runs/sweep")
    """Folder with a folder for each run, leaderboard.parquet and leaderboard.html."""
    students: Repeatable = ()
    """The students; each is trained with every combination of the grid."""
    eval_pairs: Repeatable
    """Held-out pairs to rank the runs by."""
    metric: Literal["ndcg@10", "mrr@10", "recall@10"] = PRIMARY_METRIC
    """What to rank the runs by."""
