package config

import (
	"fmt"
	"strings"
)

// Nearest is the known name that word was most likely meant to be: the one
// with the fewest inserted, left out, changed or swapped letters, if they are
// few enough for its length.
func Nearest(word string, known []string) (string, bool) {
	best, bestAt := "", -1
	for _, k := range known {
		d := distance(strings.ToLower(word), strings.ToLower(k))
		if d <= max(1, len(k)/3) && (bestAt < 0 || d < bestAt) {
			best, bestAt = k, d
		}
	}
	return best, bestAt >= 0
}

// hint ends a message about an unknown word: the nearest known one, or all of
// them if none is near.
func hint(word string, known []string) string {
	if k, ok := Nearest(word, known); ok {
		return fmt.Sprintf("; did you mean %q?", k)
	}
	if len(known) == 0 {
		return ""
	}
	return "; known: " + strings.Join(known, ", ")
}

// distance is the Damerau-Levenshtein distance of a and b (optimal string
// alignment: no letter is edited twice).
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	// Three rows of the table suffice: a swap looks two rows back.
	var before, prev, cur []int
	prev = make([]int, len(t)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(s); i++ {
		cur = make([]int, len(t)+1)
		cur[0] = i
		for j := 1; j <= len(t); j++ {
			change := 1
			if s[i-1] == t[j-1] {
				change = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+change)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev = prev, cur
	}
	return prev[len(t)]
}
