"""The parts of custom resources that the manifests use, as their operators take them.

Written from memory of what the operators document, not made from their CRDs: a key that is not here
is a fault, until it is looked up.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Named(_Strict):
    name: str
    namespace: str
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Relabeling(_Strict):
    action: Literal["replace", "labeldrop", "labelkeep", "drop", "keep"] = "replace"
    regex: str = ""
    target_label: str = Field(default="", alias="targetLabel")
    replacement: str = ""


class PodMetricsEndpoint(_Strict):
    port: str
    path: str
    interval: str = Field(pattern=r"^\d+s$")
    relabelings: list[Relabeling]
    metric_relabelings: list[Relabeling] = Field(default=[], alias="metricRelabelings")


class PodMonitorSpec(_Strict):
    selector: dict[Literal["matchLabels"], dict[str, str]]
    endpoints: list[PodMetricsEndpoint] = Field(alias="podMetricsEndpoints", min_length=1)


class Rule(_Strict):
    record: str = ""
    alert: str = ""
    expr: str
    for_: str = Field(default="", alias="for")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Group(_Strict):
    name: str
    interval: str = ""
    rules: list[Rule] = Field(min_length=1)


class PrometheusRuleSpec(_Strict):
    groups: list[Group] = Field(min_length=1)


class PrometheusTrigger(_Strict):
    server: str = Field(alias="serverAddress", pattern=r"^https?://")
    query: str
    threshold: str = Field(pattern=r"^\d+(\.\d+)?$")


class Trigger(_Strict):
    type: Literal["prometheus"]
    metric_type: Literal["AverageValue", "Value"] = Field(alias="metricType")
    metadata: PrometheusTrigger


class ScaledObjectSpec(_Strict):
    target: dict[Literal["name", "kind", "apiVersion"], str] = Field(alias="scaleTargetRef")
    least: int = Field(alias="minReplicaCount", ge=0)
    most: int = Field(alias="maxReplicaCount", ge=1)
    polling_s: int = Field(alias="pollingInterval", ge=1)
    cooldown_s: int = Field(alias="cooldownPeriod", ge=1)
    triggers: list[Trigger] = Field(min_length=1)


class Reference(_Strict):
    name: str
    namespace: str = ""
    group: str = ""
    kind: str = ""
    port: int | None = None


class RouteRule(_Strict):
    backends: list[Reference] = Field(alias="backendRefs", min_length=1)
    timeouts: dict[Literal["request", "backendRequest"], str] = {}


class HTTPRouteSpec(_Strict):
    parents: list[Reference] = Field(alias="parentRefs", min_length=1)
    hostnames: list[str]
    rules: list[RouteRule] = Field(min_length=1)


class RetryOn(_Strict):
    triggers: list[
        Literal[
            "5xx",
            "gateway-error",
            "reset",
            "reset-before-request",
            "connect-failure",
            "retriable-4xx",
            "refused-stream",
            "retriable-status-codes",
        ]
    ]
    codes: list[int] = Field(default=[], alias="httpStatusCodes")


class Retry(_Strict):
    count: int = Field(alias="numRetries", ge=0)
    on: RetryOn = Field(alias="retryOn")


class Passive(_Strict):
    errors: int = Field(alias="consecutive5XxErrors", ge=0)
    interval: str
    ejection: str = Field(alias="baseEjectionTime")
    most: int = Field(alias="maxEjectionPercent", ge=0, le=100)


class BackendTrafficPolicySpec(_Strict):
    targets: list[Reference] = Field(alias="targetRefs", min_length=1)
    balancer: dict[Literal["type"], Literal["LeastRequest", "RoundRobin", "Random"]] = Field(
        alias="loadBalancer"
    )
    retry: Retry
    health: dict[Literal["passive"], Passive] = Field(alias="healthCheck")


class Predictor(BaseModel):
    """KServe's own keys; the others are those of a pod, which is judged as one."""

    least: int = Field(alias="minReplicas", ge=0)
    most: int = Field(alias="maxReplicas", ge=1)
    metric: Literal["cpu", "memory", "concurrency", "rps"] = Field(alias="scaleMetric")
    target: int = Field(alias="scaleTarget", ge=1)
    containers: list[dict[str, Any]] = Field(min_length=1)


class InferenceServiceSpec(_Strict):
    predictor: Predictor


SPECS: dict[tuple[str, str], type[BaseModel]] = {
    ("monitoring.coreos.com/v1", "PodMonitor"): PodMonitorSpec,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PrometheusRuleSpec,
    ("keda.sh/v1alpha1", "ScaledObject"): ScaledObjectSpec,
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): HTTPRouteSpec,
    ("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy"): BackendTrafficPolicySpec,
    ("serving.kserve.io/v1beta1", "InferenceService"): InferenceServiceSpec,
}
