"""Cases of `manifoldlab bench`: each public function beside its floor and beside what people use today."""
