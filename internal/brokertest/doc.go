// Package brokertest runs message brokers inside the process, for tests and for
// the demo: nothing needs to be installed.
package brokertest
