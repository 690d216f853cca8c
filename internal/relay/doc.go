// Package relay moves messages from one broker topic to another and drops the
// duplicates on the way: source -> dedup -> sink. It publishes, awaits the
// confirmation, records, and acknowledges, in that order.
package relay
