//go:build tools

// Package tools names the command that the test bed builds, so that `go mod tidy` keeps what it needs.
package tools

import _ "go.etcd.io/etcd/server/v3"
