"""What would page, before anybody is paged: a back-test measured at several budgets."""
