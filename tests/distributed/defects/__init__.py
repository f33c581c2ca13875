"""What fal.distributed does wrong, and that this library does not.

``test_table`` lists 25 defects that were seen in fal.distributed (fal 1.83.0), most of them by running it. Every test
here bears the number of the defect that it would find, and says what happens instead.
"""
