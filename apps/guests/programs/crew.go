// Goroutines that pass work through channels, with timers, a growing heap and collections: the runtime below makes its
// own system calls, keeps its own threads and preempts them with its own signals. What it prints does not depend on any
// of that.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"sort"
	"sync"
	"time"
)

type job struct{ round, number int }

type result struct {
	number int
	digest [32]byte
}

func worker(jobs <-chan job, results chan<- result, wait *sync.WaitGroup) {
	defer wait.Done()
	for j := range jobs {
		block := make([]byte, 4096+j.number)
		for i := range block {
			block[i] = byte(i*j.number + j.round)
		}
		digest := sha256.Sum256(block)
		for i := 0; i < 10; i++ {
			digest = sha256.Sum256(append(block[:64], digest[:]...))
		}
		results <- result{j.number, digest}
	}
}

func main() {
	jobs, results := make(chan job), make(chan result, 8)
	var wait sync.WaitGroup
	for i := 0; i < 6; i++ {
		wait.Add(1)
		go worker(jobs, results, &wait)
	}
	log, err := os.Create("crew.txt")
	if err != nil {
		panic(err)
	}
	kept := map[int][][32]byte{}
	sum := sha256.New()
	for round := 1; round <= 60; round++ {
		go func(round int) {
			for n := 0; n < 50; n++ {
				jobs <- job{round, n}
			}
		}(round)
		all := make([]result, 0, 50)
		for len(all) < 50 {
			all = append(all, <-results)
		}
		sort.Slice(all, func(a, b int) bool { return all[a].number < all[b].number })
		for _, r := range all {
			sum.Write(r.digest[:])
			kept[r.number] = append(kept[r.number], r.digest)
		}
		timer := time.NewTimer(2 * time.Millisecond)
		ticks := time.NewTicker(time.Millisecond)
		select {
		case <-timer.C:
		case <-time.After(time.Minute):
			fmt.Println("the timer is late")
		}
		<-ticks.C
		ticks.Stop()
		if round%10 == 0 {
			kept = map[int][][32]byte{}
			runtime.GC()
		}
		fmt.Fprintf(log, "%d %x\n", round, sum.Sum(nil))
		fmt.Printf("round %d %x\n", round, sum.Sum(nil)[:8])
	}
	close(jobs)
	wait.Wait()
	if err := log.Close(); err != nil {
		panic(err)
	}
	fmt.Printf("end %x\n", sum.Sum(nil))
}
