#!/bin/sh
# Build and fetch what the chart is tested with, into a folder: sh tests/chart/tools.sh .cache/chart
# Go modules, jars and packages come through their ordinary clients; nothing is built twice.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/bin" "$1/crds"
out=$(cd "$1" && pwd)
export GOBIN="$out/bin" GOFLAGS=-buildvcs=false

HELM=v3.18.6
UNITTEST=v1.0.0
KUBECONFORM=v0.7.0
KEDA=v2.18.0
PROMETHEUS_OPERATOR=v0.92.1
COMPOSE=v2.9.0

# once NAME VERSION COMMAND...: run a command unless it has run for this version.
once() {
  stamp="$out/.$1-$2"
  shift 2
  [ -e "$stamp" ] && return
  "$@"
  touch "$stamp"
}

for tool in go mvn java; do
  command -v $tool >/dev/null || { echo "the chart's tests need $tool on the PATH" >&2; exit 1; }
done

# Where a module lies: `go mod download` prints it as JSON.
module() { go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p'; }

unittest() {
  # Its go.mod has replace directives, so `go install` refuses it.
  source=$(module "github.com/helm-unittest/helm-unittest@$UNITTEST")
  rm -rf "$out/unittest" && cp -r "$source" "$out/unittest" && chmod -R u+w "$out/unittest"
  # With the helm that is built anyway, so that most of it is compiled already.
  (cd "$out/unittest" && go get "helm.sh/helm/v3@$HELM" &&
    go build -mod=mod -o "$out/bin/helm-unittest" ./cmd/helm-unittest)
  rm -rf "$out/unittest"
}

podsecurity() { (cd "$here/podsecurity" && go build -o "$out/bin/podsecurity" .); }

definitions() {
  operator=$(module "github.com/prometheus-operator/prometheus-operator@$PROMETHEUS_OPERATOR")
  keda=$(module "github.com/kedacore/keda/v2@$KEDA")
  compose=$(module "github.com/compose-spec/compose-go/v2@$COMPOSE")
  for kind in podmonitors servicemonitors prometheusrules; do
    install -m 644 "$operator/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$out/crds"
  done
  for kind in scaledobjects triggerauthentications; do
    install -m 644 "$keda/config/crd/bases/keda.sh_$kind.yaml" "$out/crds"
  done
  install -m 644 "$compose/schema/compose-spec.json" "$out"
}

jars() {
  mvn --strict-checksums --quiet --batch-mode --no-transfer-progress --file "$here/pom.xml" \
    dependency:copy-dependencies -DoutputDirectory="$out/jars"
  java -cp "$out/jars/*" io.strimzi.crdgenerator.CrdGenerator --yaml \
    "io.strimzi.api.kafka.model.topic.KafkaTopic=$out/crds/kafkatopics.yaml" \
    "io.strimzi.api.kafka.model.user.KafkaUser=$out/crds/kafkausers.yaml" 2>/dev/null
  (cd "$out/crds" && jar=$(ls "$out"/jars/flink-kubernetes-operator-api-*.jar) &&
    python3 -m zipfile -e "$jar" flink &&
    cp flink/META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml flinkdeployments.yaml &&
    rm -rf flink)
}

packages() {
  python3 -m venv "$out/venv"
  "$out/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
    --require-hashes --requirement "$here/tools.txt"
}

once definitions "$KEDA-$PROMETHEUS_OPERATOR-$COMPOSE" definitions
once jars "$(cksum <"$here/pom.xml" | cut -d' ' -f1)" jars
once packages "$(cksum <"$here/tools.txt" | cut -d' ' -f1)" packages
once kubeconform "$KUBECONFORM" go install "github.com/yannh/kubeconform/cmd/kubeconform@$KUBECONFORM"
once helm "$HELM" go install "helm.sh/helm/v3/cmd/helm@$HELM"
once podsecurity "$(cat "$here"/podsecurity/go.* "$here"/podsecurity/main.go | cksum | cut -d' ' -f1)" podsecurity
once unittest "$UNITTEST-$HELM" unittest
