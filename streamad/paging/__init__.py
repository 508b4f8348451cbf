"""From alerts to pages: budgets, incidents, silences and feedback; see `streamad.paging.desk`."""
