"""TFRecord files without TensorFlow: framing, checksums, `tf.train.Example`, and random access."""
