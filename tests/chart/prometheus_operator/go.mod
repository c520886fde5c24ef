// The definitions of ServiceMonitor and PrometheusRule, for checking the chart's objects.
module trierarch.test/prometheus-operator

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
