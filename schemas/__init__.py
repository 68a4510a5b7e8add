"""What an event is: the Avro schemas, the Python types generated from them, and the codec between the two."""
