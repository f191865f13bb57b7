package pipeline

import (
	"os"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"go.uber.org/goleak"
)

// smallRecords counts what metric and quarantine records allocate.
var smallRecords = memory.NewCheckedAllocator(memory.NewGoAllocator())

func TestMain(m *testing.M) {
	memory.DefaultAllocator = smallRecords
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { os.Exit(code) }))
}
