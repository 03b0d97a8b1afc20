"""Wild arguments for every public function and command, mutated files for every reader."""
