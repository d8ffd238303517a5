"""What a history must survive, tried for real: ``make torture`` many times, the tests a few times. Not part of the wheel."""
