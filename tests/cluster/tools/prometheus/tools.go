//go:build tools

// Package tools pins what the test cluster builds.
package tools

import _ "github.com/prometheus/prometheus/cmd/promtool"
