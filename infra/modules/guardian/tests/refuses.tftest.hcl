# What is refused, before anything is created.

mock_provider "aws" {
  source = "./tests/mock"
}

variables {
  clusters       = ["prod"]
  load_balancers = []
  image          = "registry.example.com/taskset-guardian:1.0.0"
  vpc_id         = "vpc-0123456789abcdef0"
  subnet_ids     = ["subnet-0123456789abcdef0"]
  rules          = { "web.toml" = "name = \"web\"\n" }
}

run "two_replicas_without_a_table" {
  command = plan
  variables {
    table = false
  }
  expect_failures = [var.replicas]
}

run "no_cluster" {
  command = plan
  variables {
    clusters = []
  }
  expect_failures = [var.clusters]
}

run "a_cluster_by_pattern" {
  command = plan
  variables {
    clusters = ["prod-*"]
  }
  expect_failures = [var.clusters]
}

run "a_service_pattern_that_no_event_pattern_can_say" {
  command = plan
  variables {
    services = ["web-*-canary"]
  }
  expect_failures = [var.services]
}

run "shards_that_overlap" {
  command = plan
  variables {
    shards = {
      a = ["check*"]
      b = ["checkout"]
    }
  }
  expect_failures = [var.shards]
}

run "shards_that_overlap_the_other_way_round" {
  command = plan
  variables {
    shards = {
      a = ["checkout-api", "x*"]
      b = ["checkout-*"]
    }
  }
  expect_failures = [var.shards]
}

run "shards_of_the_same_prefix" {
  command = plan
  variables {
    shards = {
      a = ["web*"]
      b = ["web*"]
    }
  }
  expect_failures = [var.shards]
}

run "shards_beside_services" {
  command = plan
  variables {
    services = ["web"]
    shards   = { a = ["web"] }
  }
  expect_failures = [var.shards]
}

run "a_target_group_for_a_load_balancer" {
  command = plan
  variables {
    load_balancers = ["arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/web/50dc6c495c0c9188"]
  }
  expect_failures = [var.load_balancers]
}

run "no_rules" {
  command = plan
  variables {
    rules = {}
  }
  expect_failures = [var.rules]
}

run "a_rule_file_that_would_not_be_read" {
  command = plan
  variables {
    rules = { "web.yaml" = "" }
  }
  expect_failures = [var.rules]
}

run "rules_that_fit_into_no_task_definition" {
  command = plan
  variables {
    rules = { "web.toml" = join("\n", [for number in range(1000) : "# line ${number}, as somebody wrote it who had much to say about it"]) }
  }
  expect_failures = [var.rules]
}

run "the_newest_image_whatever_it_is" {
  command = plan
  variables {
    image = "registry.example.com/taskset-guardian:latest"
  }
  expect_failures = [var.image]
}

run "memory_that_fargate_does_not_have" {
  command = plan
  variables {
    memory = 256
  }
  expect_failures = [var.memory]
}

run "a_queue_that_forgets_over_the_weekend" {
  command = plan
  variables {
    queue_retention = 86400
  }
  expect_failures = [var.queue_retention]
}

run "news_that_are_never_told" {
  command = plan
  variables {
    notify = ["Rollback Begun"]
  }
  expect_failures = [var.notify]
}

run "settings_past_the_module" {
  command = plan
  variables {
    environment = { TASKSET_GUARDIAN_QUEUE_URL = "https://sqs.eu-west-1.amazonaws.com/1/other" }
  }
  expect_failures = [var.environment]
}

run "a_sweep_without_a_unit" {
  command = plan
  variables {
    sweep = "30"
  }
  expect_failures = [var.sweep]
}

run "a_sweep_that_the_worker_refuses" {
  command = plan
  variables {
    sweep = "301s"
  }
  expect_failures = [var.sweep]
}

run "a_shard_that_is_called_as_the_role_that_starts_tasks" {
  command = plan
  variables {
    shards = { start = ["a*"], b = ["b*"] }
  }
  expect_failures = [var.shards]
}

run "a_shard_that_is_called_as_the_dead_letters_of_another" {
  command = plan
  variables {
    shards = { a = ["a*"], a-dead-letters = ["b*"] }
  }
  expect_failures = [var.shards]
}

run "more_clusters_than_a_pattern_can_name" {
  command = plan
  variables {
    clusters = [for number in range(60) : "a-cluster-with-a-long-name-${number}"]
  }
  expect_failures = [aws_cloudwatch_event_rule.this]
}

run "more_shards_than_an_account_can_read_for" {
  command = plan
  variables {
    shards = { a = ["a*"], b = ["b*"], c = ["c*"] }
  }
  expect_failures = [var.elb_reads]
}
