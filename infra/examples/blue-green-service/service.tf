resource "aws_ecs_cluster" "this" {
  name = var.cluster

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

# The service says how many tasks there are; its task sets say of what. It has no circuit breaker and no alarms: ECS has
# none for this controller. The tag asks the guardian to be both, by the rule of that name.
resource "aws_ecs_service" "this" {
  name          = var.service
  cluster       = aws_ecs_cluster.this.id
  desired_count = var.desired_count

  deployment_controller {
    type = "EXTERNAL"
  }

  tags = { "taskset-guardian:rule" = var.service }

  lifecycle {
    # Of the PRIMARY task set. The tags are the guardian's control plane: people hold and release by them.
    ignore_changes = [desired_count, task_definition, load_balancer, network_configuration, launch_type, platform_version, tags, tags_all]
  }
}

locals {
  images = { for colour, image in { blue = var.blue_image, green = var.green_image } : colour => image if image != "" }
}

resource "aws_ecs_task_definition" "this" {
  #checkov:skip=CKV_AWS_336:The web server of the example writes to its own root file system
  for_each = local.images

  family                   = var.service
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 256
  memory                   = 512
  execution_role_arn       = aws_iam_role.start.arn
  # A version that was deployed is what one goes back to.
  skip_destroy = true

  container_definitions = jsonencode([{
    name         = "app"
    image        = each.value
    essential    = true
    memory       = 512
    portMappings = [{ containerPort = 80, hostPort = 80, protocol = "tcp" }]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = data.aws_region.this.name
        awslogs-stream-prefix = each.key
      }
    }
  }])
}

resource "aws_ecs_task_set" "this" {
  for_each = local.images

  service         = aws_ecs_service.this.id
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.this[each.key].arn
  launch_type     = "FARGATE"
  external_id     = each.key
  force_delete    = true

  network_configuration {
    subnets          = aws_subnet.public[*].id
    security_groups  = [aws_security_group.tasks.id]
    assign_public_ip = true
  }

  load_balancer {
    target_group_arn = aws_lb_target_group.this[each.key].arn
    container_name   = "app"
    container_port   = 80
  }

  scale {
    unit  = "PERCENT"
    value = 100
  }

  lifecycle {
    # Whoever deploys scales the old version down, and the guardian scales it up again.
    ignore_changes = [scale]
  }

  # A target group that is in no rule takes no task set.
  depends_on = [aws_lb_listener_rule.this]
}

data "aws_region" "this" {}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_158:CloudWatch encrypts logs by a key of its own
  name              = "/ecs/${var.cluster}/${var.service}"
  retention_in_days = 365
}

resource "aws_iam_role" "start" {
  name = "${var.service}-start"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy" "start" {
  name = "logs"
  role = aws_iam_role.start.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = "${aws_cloudwatch_log_group.this.arn}:*"
    }]
  })
}
