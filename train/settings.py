"""Settings of stage 2, checked as soon as they are made; nothing here imports a library that takes long to load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter, Token

from ..shared.data.columns import Columns
from ..shared.errors import SettingsError
from ..shared.settings import flag_of, refuse_below, refuse_idle, refuse_url
from ..shared.types import PRIMARY_METRIC, JudgeName, MarginStrategy

LossName = Literal["guided", "unguided"]
Repeatable = Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)]
Switch = Annotated[bool, Parameter(negative="")]

# Where things are, what is logged, and how much is computed at a time. Index and student are compared by content.
FREE_ON_RESUME = frozenset(
    {"index", "verify", "rescored", "student", "out", "resume", "device", "eval_pairs", "columns", "save_steps"}
    | {"save_minutes", "logging_steps", "report_to", "token_cache", "mini_batch_num_tokens"}
)


def dimensions(type_: object, tokens: Sequence[Token]) -> tuple[int, ...]:
    """Numbers separated by commas on the command line, or a list in a TOML file, which may be empty."""
    return tuple(int(number) for token in tokens for number in token.value.split(",") if number)


def _refuse_unknown(settings: object, **choices: Any) -> None:  # noqa: ANN401 (literal types)
    for name, choice in choices.items():
        if (value := getattr(settings, name)) not in get_args(choice):
            what, fix = f"There is no {name.replace('_', ' ')} {value!r}", f"give {' or '.join(get_args(choice))}"
            raise SettingsError(what, where=flag_of(name), fix=fix)


@Parameter(name="*", group="Hard negatives")
@dataclass(frozen=True, kw_only=True)
class HardNegativeSettings:
    """Which neighbours become hard negatives."""

    hard_negatives: int = 0
    """Hard negatives a pair, drawn anew each epoch from the anchor's stored neighbours that the judge lets pass."""
    skip_top: int = 0
    """Leave out this many of the closest neighbours, whatever the judge says."""
    draw: Literal["random", "top", "weighted"] = "random"
    """`random`: all that pass are equally likely; `top`: the closest; `weighted`: closer ones are more likely."""
    negative_margin: float | None = None
    """Let only neighbours pass that score by this margin below the positive; default: as the judge says."""
    negative_margin_strategy: MarginStrategy = "relative"
    """Pass up to score - abs(score) * margin (`relative`) or score - margin (`absolute`) of the positive's score."""

    def __post_init__(self) -> None:
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
    """False negatives are candidates closer to the anchor than its own positive, as in the paper (`positive`), or those
    of pairs as related as an anchor and its positive, relative to local density (`neighborhood`)."""
    judge_threshold: float | None = None
    """Relatedness above which --judge neighborhood masks; default: chosen from the index."""
    judge_quantile: float = 0.5
    """Choose that threshold at this quantile of how related anchors are to their own positives; less masks more."""
    margin: float = 0.0
    """How far below the judge's threshold a candidate is masked already; greater masks more."""
    margin_strategy: MarginStrategy = "absolute"
    """`absolute`: score - margin; `relative`: score - abs(score) * margin."""

    def __post_init__(self) -> None:
        _refuse_unknown(self, judge=JudgeName, margin_strategy=MarginStrategy)
        refuse_below(self, 0, "margin", "judge_quantile")
        if not self.margin:
            refuse_idle(self, ("margin_strategy",), "--margin")
        if self.judge_quantile > 1:
            raise SettingsError(f"{self.judge_quantile} is no quantile", where="--judge-quantile", fix="give 0 to 1")
        if self.judge == "positive":
            refuse_idle(self, ("judge_threshold", "judge_quantile"), "--judge neighborhood")
        elif self.margin_strategy == "relative":
            what = "A relative margin needs a positive's score"
            where = "--margin-strategy relative --judge neighborhood"
            raise SettingsError(what, where=where, fix="give an absolute margin")
        elif self.judge_threshold is not None and self.judge_quantile != JudgeSettings.judge_quantile:
            where = "--judge-threshold --judge-quantile"
            raise SettingsError("A threshold needs no quantile", where=where, fix="leave one of both out")


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
    terms: DistillationSettings = field(default_factory=DistillationSettings)

    def __post_init__(self) -> None:
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
    """A reranker's scores, made by `gistcache rescore`: where there is one, it decides on false and hard negatives."""
    student: str
    """The student: a folder, a hub id, or `package:DISTRIBUTION`."""
    out: Path = Path("runs/student")
    """Folder for the trained model, its checkpoints and metrics.json."""
    layers: int | None = None
    """Keep this many evenly spaced transformer layers of the student; default: all."""
    static: Switch = False
    """Average the student's token embeddings in place of running a transformer; docs/STUDENTS.md says which tables."""
    lora_rank: int | None = None
    """Train low-rank adapters of this rank only (LoRA); they are merged into the model that is saved."""
    matryoshka: Annotated[tuple[int, ...], Parameter(negative="", n_tokens=1, converter=dimensions)] = ()
    """Train the leading dimensions to be embeddings too, such as 128,64; all dimensions always are."""
    max_length: int | None = None
    """Tokens after which the student cuts a text; default: the student's own limit."""
    query_prompt: str | None = None
    """Put before every anchor; default: the student's own prompt named `query`."""
    document_prompt: str | None = None
    """Put before every positive and negative; default: the student's own named `document`, `passage` or `corpus`."""
    objective: LossSettings = field(default_factory=LossSettings)
    epochs: float = 1.0
    """Passes over the pairs."""
    max_steps: int | None = None
    """Stop after this many steps, whatever the epochs."""
    batch_size: int = 64
    """Pairs a batch, of all processes together; each is judged against all others of its batch."""
    hardness: int = 0
    """Pairs that each pair brings into its batch from its anchor's stored neighbours; 0 for random batches."""
    keep_positive_rank: int | None = None
    """Train only on pairs whose positive is among this many documents closest to its anchor (consistency filtering)."""
    mini_batch_num_tokens: int | None = None
    """Embed this many tokens at a time, twice, for batches that do not fit into memory (gradient caching)."""
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

    def __post_init__(self) -> None:
        # From Python, a path may be a string, and so may the only file of held-out pairs.
        self.__dict__["out"], self.__dict__["rescored"] = Path(self.out), self.rescored and Path(self.rescored)
        if isinstance(self.eval_pairs, str):
            self.__dict__["eval_pairs"] = (self.eval_pairs,)
        refuse_below(self, 1, "layers", "lora_rank", "max_length", "mini_batch_num_tokens", "gradient_accumulation")
        refuse_below(self, 1, "max_steps", "keep_positive_rank", "eval_steps", "save_steps", "logging_steps")
        refuse_below(self, 2, "batch_size")  # a batch of one pair has no negatives
        refuse_below(self, 0, "seed", "hardness", "weight_decay", "warmup")
        refuse_below(self, 0, "save_minutes", "epochs", "learning_rate", strictly=True)
        refuse_url(self.out, "--out")
        if self.warmup >= 1:
            raise SettingsError(f"{self.warmup} is no share", where="--warmup", fix="give 0 or more, and less than 1")
        if any(dim < 1 for dim in self.matryoshka) or len(set(self.matryoshka)) < len(self.matryoshka):
            where = f"--matryoshka {','.join(map(str, self.matryoshka))}"
            raise SettingsError("Dimensions are 1 or more, each given once", where=where, fix="give some as 256,128,64")
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        if self.rescored and self.objective.loss == "unguided":
            what = "Unguided training uses no reranker's scores"
            raise SettingsError(what, where="--rescored", fix="leave one of the two out")
        if self.static and (self.layers or self.lora_rank):
            where = "--static " + (f"--layers {self.layers}" if self.layers else f"--lora-rank {self.lora_rank}")
            raise SettingsError("A static student has no layers", where=where, fix="leave out one of the two")
        if self.eval_steps and not self.eval_pairs:
            raise SettingsError("There is nothing to evaluate on", where="--eval-steps", fix="give --eval-pairs too")
        if self.eval_steps and self.save_steps and self.save_steps % self.eval_steps:
            what = "The best checkpoint can be kept only if checkpoints are written where the model is evaluated"
            where = f"--save-steps {self.save_steps} --eval-steps {self.eval_steps}"
            raise SettingsError(what, where=where, fix="give a multiple of --eval-steps, or leave --save-steps out")

    def recorded(self) -> dict[str, Any]:
        """All settings, JSON-ready, for ``metrics.json``."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

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
    """`n-tuple`, for sentence-transformers: anchor, positive, negative_1 ... negative_N; pairs with fewer are left out.
    `flagembedding`: query, pos, neg, pos_scores, neg_scores, a row an anchor; those without negatives are left out."""
    mining: HardNegativeSettings = field(default_factory=HardNegativeSettings)
    judging: JudgeSettings = field(default_factory=JudgeSettings)
    rescored: Path | None = None
    """A reranker's scores, made by `gistcache rescore`, in place of the guide's and of the judge."""
    seed: int = 0
    """Seed of the drawing; give the training run's."""
    epoch: int = 0
    """Which epoch's negatives to draw, counted from 0."""

    def __post_init__(self) -> None:
        if self.mining.hard_negatives < 1:
            what = "The number of hard negatives is missing"
            raise SettingsError(what, where="--hard-negatives", fix="give 1 or more")
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
    """Folder with a folder for each run, and leaderboard.parquet."""
    students: Repeatable = ()
    """The students; each is trained with every combination of the grid."""
    eval_pairs: Repeatable
    """Held-out pairs to rank the runs by."""
    metric: Literal["ndcg@10", "mrr@10", "recall@10"] = PRIMARY_METRIC
    """What to rank the runs by."""
