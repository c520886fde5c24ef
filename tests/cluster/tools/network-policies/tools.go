//go:build tools

// Package tools pins what the test cluster builds.
package tools

import _ "sigs.k8s.io/kube-network-policies/cmd"
