//go:build tools

// Package tools pins what the test cluster builds.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
