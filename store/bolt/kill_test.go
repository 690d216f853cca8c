package boltstore
const workerDir = "X"
func work(string) {}
