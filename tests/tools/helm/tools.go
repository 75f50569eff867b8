//go:build tools

// Package helm names the program that `cargo xtask test` installs the chart with, so that go.mod pins it.
package helm

import (
	_ "helm.sh/helm/v4/cmd/helm"
)
