// The metadata service itself.
