// LogFormat
