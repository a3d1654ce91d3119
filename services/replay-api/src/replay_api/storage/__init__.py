"""Where things are kept. `mongo`, `runs`, `episodes`, `events` and `checkpoint_records` know MongoDB through Motor,
`indexes` through PyMongo; `objects`, `directory_objects` and `s3_objects` know where checkpoints lie. Nothing outside
this package imports a driver."""
