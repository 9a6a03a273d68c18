"""Documents and query parameters of cold endpoints, which FastAPI validates and describes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema, WithJsonSchema

from jetmap import bounds
from jetmap.jobs.record import JobState

from .request import out_of_bounds, unknown_parameter

STATES: tuple[JobState, ...] = tuple(
    s for s in get_args(JobState) if s not in ("uploading", "deleted")
)
# The pattern of an id of a job's events.
EVENT_ID = r"^(?:([0-9]{1,3})/)?([0-9]{1,18})(?:\.([0-9]{1,9}))?(-end)?$"
LISTED = tuple(s for s in STATES if s != "expired")  # An expired job is only found by its id.

NonNegative = Annotated[int, Field(ge=0)]
# RFC 3339, in UTC with milliseconds.
Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Text = str | SkipJsonSchema[None]


# Documents


class ItemError(BaseModel):
    """The error of one item."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"index": 3, "kind": "raised", "type": "ValueError", "message": "too small"}
            ]
        }
    )

    index: NonNegative = Field(description="its position in the input")
    kind: Literal["raised", "invalid", "timeout", "lost", "unencodable"]
    type: str = Field(description="the class of the exception")
    message: str
    tries: NonNegative | None = Field(None, description="calls, if the function has retries")
    traceback: Text = Field(None, description="only with --debug")


class Problem(BaseModel):
    """A refusal (RFC 9457)."""

    type: str = Field(examples=["urn:jetmap:item-raised"])
    title: str
    status: int
    detail: Text = None
    error: ItemError | SkipJsonSchema[None] = None
    position: int | SkipJsonSchema[None] = Field(
        None, description="where the body is malformed, in bytes"
    )
    setting: Text = Field(None, description="the limit's setting")
    limit: int | SkipJsonSchema[None] = None
    errors: list[ItemError] | SkipJsonSchema[None] = Field(
        None, description="the first few of more than `max_failed`"
    )


class JobLinks(BaseModel):
    """Paths of this host."""

    self_: str = Field(alias="self")
    results: str
    events: str
    cancel: str
    retry: str


class Job(BaseModel):
    """A job's state and progress."""

    id: str
    function: str
    state: JobState = Field(
        description="`waiting`: it cannot go on until it has what `waiting_for` names. "
        "`succeeded`: no item failed, or no more than `max_failed`. "
        "`failed`: some did, or, if there is a `reason`, the job did.",
        json_schema_extra={"enum": list(STATES)},
    )
    total: NonNegative | None
    done: NonNegative = Field(description="items that have an outcome")
    failed: NonNegative = Field(description="those of them that failed")
    created: Instant | None
    started: Instant | None
    finished: Instant | None
    rate: float | None = Field(description="items a second, not counting the time it waited")
    seconds_left: float | None = Field(
        description="an estimate; null while unknown or waiting, 0 when it is over"
    )
    waiting_for: str | None = Field(
        description="the kind of thing that a waiting job lacks, such as `workers`"
    )
    reason: str | None = Field(description="why it waits, or failed as a whole")
    max_failed: str | None = Field(
        None, description="items that may fail, or their share, such as `5%`"
    )
    run: NonNegative = Field(1, description="the latest; `retry` starts the next")
    labels: dict[str, str] = Field(
        default_factory=dict, description="names and values by which people find it"
    )
    max_parallel: NonNegative | None = Field(None, description="cores that it may use at most")
    paused: bool = Field(False, description="whether nothing more of it is sent")
    links: JobLinks


class JobList(BaseModel):
    """A page of jobs."""

    jobs: list[Job]
    next: str | None = Field(description="the path of the next page")


class JobPage(BaseModel):
    """The outcomes of consecutive items."""

    start: NonNegative
    values: list[Any] = Field(description="null where an item failed")
    errors: list[ItemError]
    next: NonNegative | None = Field(description="the next page's start")
    run: NonNegative | SkipJsonSchema[None] = Field(
        None, description="the run, if it is not the first"
    )


class EventsAddress(BaseModel):
    """An address that needs no token."""

    url: str = Field(description="a path of this host")
    expires: Instant | None = Field(description="null if the gateway asks for no token")


class Function(BaseModel):
    """A function, as its newest version describes it."""

    name: str
    doc: str
    item: dict[str, Any] = Field(title="FunctionItem", description="a JSON schema")
    value: dict[str, Any] = Field(title="FunctionValue", description="a JSON schema")
    kwargs: dict[str, Any] = Field(title="FunctionKwargs", description="a JSON schema")
    timeout: float | None = None
    attempts: NonNegative | None = None
    retries: NonNegative = 0
    batch: NonNegative | None = Field(
        None, description="items of one call; null if it takes one item"
    )
    linger: float | None = Field(None, description="seconds that a call waits for more items")
    refusal: str | None = Field(
        None, description="why it cannot be called, if a type cannot travel"
    )
    module: str = ""
    alive: bool = Field(description="whether a worker offers it now")
    cores: NonNegative
    agents: list[str]
    paused: bool = Field(False, description="whether nothing new of it is sent")
    max_parallel: NonNegative | None = Field(
        None,
        description="cores that it may use at most, over the whole pool: as people have limited "
        "it, else as its code says; null: any number",
    )
    max_parallel_in_code: NonNegative | None = Field(None, description="the limit of its code")


class SteeredFunction(BaseModel):
    """A function, as people have paused or limited it."""

    name: str
    paused: bool = Field(description="whether nothing new of it is sent")
    max_parallel: NonNegative | None = Field(
        description="cores that it may use at most, over the whole pool: as people have limited "
        "it, else as its code says; null: any number"
    )
    max_parallel_in_code: NonNegative | None = Field(description="the limit of its code")


class SteeredPool(BaseModel):
    """The pool, as people have paused it."""

    pool: str
    paused: bool = Field(description="whether nothing new of any function is sent")
    functions: list[SteeredFunction] = Field(description="those that are paused or limited")


class Agent(BaseModel):
    """An agent and the state of its cores."""

    agent: str
    host: str
    pool: str
    cores: NonNegative
    ready: NonNegative = 0
    busy: NonNegative = 0
    draining: bool = False
    functions: list[str]


class PoolMap(BaseModel):
    """An open map or job."""

    id: str
    function: str
    kind: str = Field(description="`map` or `job`")
    owner: str = Field(description="who runs it: program and host")
    labels: dict[str, str]
    state: str = Field(description="`running`, `waiting` or `paused`")
    total: NonNegative | None
    done: NonNegative
    failed: NonNegative
    rate: float = Field(description="items a second")
    left: float | None = Field(description="seconds to its end, an estimate")
    cores: float = Field(description="cores at work for it")
    limit: NonNegative | None = Field(description="cores that it may use at most")
    waits: str = Field(
        description="why it does not go faster, such as `workers` or `a pause of its function`"
    )


class Health(BaseModel):
    """The state of the gateway, and what is missing if a map would not run."""

    status: str
    missing: Text = None


class Scale(BaseModel):
    """The load of the pool: what waits, and how many cores would end it in time."""

    backlog_seconds: float
    unknown_items: int
    cores: int
    wanted_cores: int


# Parameters


@dataclass(frozen=True)
class Within:
    """Annotates a number in a query with its bound."""

    bound: bounds.Bound

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return self.bound.schema()


class Parameters(BaseModel):
    """The query of an endpoint. Anything unknown or out of bounds is refused as a Problem."""

    # Lets FastAPI pass unknown parameters on.
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, given: dict[str, Any]) -> dict[str, Any]:
        known = cls.model_fields
        for name in given:
            if name not in known:
                raise unknown_parameter(name, tuple(known))
        return {name: _parsed(name, text, known[name].metadata) for name, text in given.items()}


def _parsed(name: str, value: Any, metadata: list[Any]) -> Any:
    """Read a number that has a bound; return anything else as it is."""
    for annotation in metadata:
        # Older versions of FastAPI pass defaults, which are numbers already.
        if isinstance(annotation, Within) and isinstance(value, str):
            found = annotation.bound.parse(value)
            if found is None:
                raise out_of_bounds(name, annotation.bound)
            return found
    return value


# The pattern of a list of states.
_STATES = f"^({'|'.join(LISTED)})(,({'|'.join(LISTED)}))*$"
EventIdText = Annotated[str, WithJsonSchema({"type": "string", "pattern": EVENT_ID})]


RunNumber = Annotated[int | SkipJsonSchema[None], Within(bounds.RUN)]


class NoParameters(Parameters):
    """The query of an endpoint that has no parameters."""


class LimitParameters(Parameters):
    """The query of a limit."""

    max_parallel: Annotated[int | SkipJsonSchema[None], Within(bounds.PARALLEL_OR_NONE)] = Field(
        None,
        description="Cores that it may use at most, over the whole pool; 0, or left out: no limit "
        "of its own. A function then has that of its code, if there is one.",
    )


class ListParameters(Parameters):
    """The query of the list of jobs."""

    state: Annotated[Text, Field(json_schema_extra={"pattern": _STATES})] = Field(
        None, description=f"One or more of {', '.join(LISTED)}, separated by commas."
    )
    function: Text = Field(None, description="List only jobs of this function.")
    labels: Annotated[Text, Field(json_schema_extra={"pattern": bounds.LABELS_PATTERN})] = Field(
        None, description="List only jobs that have these labels, such as `customer=7,team=a`."
    )
    limit: Annotated[int, Within(bounds.PAGE_JOBS)] = Field(100, description="Jobs of a page.")
    after: Text = Field(None, description="Where the page before ended; see its `next`.")


class MapsParameters(Parameters):
    """The query of the list of open maps."""

    function: Text = Field(None, description="List only maps of this function.")
    labels: Annotated[Text, Field(json_schema_extra={"pattern": bounds.LABELS_PATTERN})] = Field(
        None, description="List only maps that have these labels, such as `customer=7,team=a`."
    )


class ResultsParameters(Parameters):
    """The query of a job's results."""

    start: Annotated[int, Within(bounds.START)] = Field(0, description="The first item.")
    limit: Annotated[int, Within(bounds.PAGE_ITEMS)] = Field(
        1000, description="Items of a page; only for JSON, and MessagePack with `only`."
    )
    wait: Annotated[float, Within(bounds.POLL)] = Field(
        0, description="Seconds to wait if there is nothing yet; not with `only`."
    )
    run: RunNumber = Field(None, description="A run of the job; the latest if there is none given.")
    only: Annotated[Text, Field(json_schema_extra={"enum": ["failed"]})] = Field(
        None, description="`failed`: only the errors of the items that failed so far."
    )


class EventsParameters(Parameters):
    """The query of a job's events."""

    last_event_id: EventIdText | SkipJsonSchema[None] = Field(
        None, description="For clients that cannot send the header."
    )
    run: RunNumber = Field(
        None, description="A run of the job; by default the latest. An event's id names its own."
    )
