"""Grade untrusted notebooks: a submission can change its score only by returning right numbers."""
